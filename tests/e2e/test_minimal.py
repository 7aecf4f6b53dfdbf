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


if __name__ == "__main__":
    unittest.main()
