"""The daemon that a reader copies from works as it stands, its count grows by one with each
connection, whoever serves."""
import socket
import unittest

import harness


def text(service):
    return """service count {
    command = {"%s", "%s"}
    data-dir = "%s"
    listen main { address = "tcp:127.0.0.1:%d" }
}
""" % (service.binary, service.data_dir, service.data_dir, service.port)


class Minimal(harness.TestCase):
    def next(self, service):
        with socket.create_connection(("127.0.0.1", service.port), timeout=harness.PATIENCE) as c:
            return int(c.makefile().readline())

    def start(self):
        return self.service(binary="minimal", name="count", text=text)

    def test_it_counts_on_over_upgrades(self):
        service = self.start()
        for expected in range(1, 21):
            self.assertEqual(self.next(service), expected)
            self.assertEqual(service.upgrade().result["outcome"], "committed")

    def test_it_counts_on_over_the_supervisors_death(self):
        service = self.start()
        self.assertEqual(self.next(service), 1)
        service.kill_supervisor()
        self.assertEqual(self.next(service), 2)
        service.start()
        self.assertEqual(self.next(service), 3)
        self.assertEqual(service.upgrade().result["outcome"], "committed")
        self.assertEqual(self.next(service), 4)

    def test_a_listener_by_a_wrong_name(self):
        """The first thing that goes wrong, and how a reader mends it."""
        service = self.service(binary="minimal", name="count", start=False,
                               text=lambda s: text(s).replace("listen main", "listen mian"))
        service.launch()
        service.wait_status(lambda s: s["warning"], "it does not start")
        service.text = text
        service.configure()
        p = service.ctl("restart", "count")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(self.next(service), 1)

    def test_a_listener_that_nobody_takes(self):
        """It asks for `main`, and for no other."""
        service = self.start()
        untaken = "has not taken the listener extra: who connects there waits, and nobody accepts"
        self.assertNotIn("has not taken", service.log())
        with open(service.conf, encoding="utf-8") as f:
            text_now = f.read()
        with open(service.conf, "w", encoding="utf-8") as f:
            f.write(text_now.replace("    listen", '    listen extra { address = "unix:@%s" }\n    listen'
                                     % service.path("extra")))
        self.assertEqual(service.upgrade().result["outcome"], "committed")
        self.assertIn("the daemon (pid %d) %s" % (service.daemon_pid(), untaken), service.log())


if __name__ == "__main__":
    unittest.main()
