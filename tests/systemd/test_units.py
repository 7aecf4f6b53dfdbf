"""handoff@NAME as systemd and its operators see it."""

import systemd


class Units(systemd.TestCase):
    """A service that is started, reloaded and stopped."""

    def test_start(self):
        """`systemctl start` returns when the daemon serves, and says which."""
        u = self.unit(start=False)
        u.start()
        self.assertTrue(u.client().ping())
        self.assertEqual(u.state(), "active/running")
        self.assertEqual(u.show("StatusText"), "pid %d serves" % u.daemon_pid())
        self.assertEqual(u.show("ActiveState", u.guard), "active")
