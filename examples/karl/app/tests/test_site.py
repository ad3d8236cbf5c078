"""The whole site over its database service, as a browser sees it."""

import fcntl
import json
import os
import threading
import time

from karl import server
from tests.support import Case, Served, serve_all


class SiteTest(Case):
    def setUp(self):
        super().setUp()
        self.base, self.site = serve_all(self)

    def log_in(self):
        fields = {"login": "ann", "password": "secret"}
        status, headers, _ = self.site.ask("POST", "/trunk/osf/login", fields)
        self.assertEqual((status, headers["Location"]), (303, "/trunk/osf/"))
        return headers["Set-Cookie"].split(";")[0]

    def test_without_cookie_there_is_a_form(self):
        status, _, text = self.site.ask("GET", "/trunk/osf/")
        self.assertEqual(status, 200)
        self.assertIn('action="/trunk/osf/login"', text)
        self.assertNotIn("Entry 0", text)

    def test_wrong_password(self):
        status, headers, _ = self.site.ask("POST", "/trunk/osf/login", {"login": "ann", "password": "no"})
        self.assertEqual((status, headers["Set-Cookie"]), (401, None))

    def test_home_before_and_after_evolving(self):
        cookie = self.log_in()
        text = self.site.ask("GET", "/trunk/osf/", cookie=cookie)[2]
        self.assertIn("Schema level 1,", text)
        self.assertIn("– words", text)
        self.assertIn("Not evolved yet.", text)
        level = self.evolve()
        text = self.site.ask("GET", "/trunk/osf/", cookie=cookie)[2]
        self.assertIn("Schema level %d," % level, text)
        self.assertIn("4 words", text)
        self.assertIn("Evolved: 8 words counted.", text)

    def test_entry_is_marked_up_and_escaped(self):
        cookie = self.log_in()
        self.assertIn("<strong>bold</strong>", self.site.ask("GET", "/trunk/osf/entries/2", cookie=cookie)[2])
        text = self.site.ask("GET", "/trunk/osf/entries/3", cookie=cookie)[2]
        self.assertIn("&lt;script&gt;", text)
        self.assertIn("file.bin", text)

    def test_blob(self):
        status, headers, text = self.site.ask("GET", "/trunk/osf/blobs/1", cookie=self.log_in())
        self.assertEqual((status, text), (200, "\0\1\2"))
        self.assertIn("file.bin", headers["Content-Disposition"])

    def test_not_found(self):
        cookie = self.log_in()
        for path in ("/", "/other/osf/", "/trunk/nobody/", "/trunk/osf/none", "/trunk/osf/entries/99"):
            self.assertEqual(self.site.ask("GET", path, cookie=cookie)[0], 404, path)

    def test_health_is_true(self):
        status, _, text = self.site.ask("GET", "/trunk/health")
        self.assertEqual((status, json.loads(text)["levels"]), (200, {"osf": 1}))

    def test_health_fails_without_data(self):
        (self.root / "data" / "osf" / "current").unlink()
        self.assertEqual(self.site.ask("GET", "/trunk/health")[0], 503)

    def test_health_fails_without_the_service(self):
        os.unlink(self.base.path)
        self.assertEqual(self.site.ask("GET", "/trunk/health")[0], 503)

    def test_database_keeps_to_its_data(self):
        for path in ("/trunk/../status", "/trunk/.hidden/status", "/trunk/nobody/status", "/other/osf/status"):
            self.assertEqual(self.base.ask("GET", path)[0], 404, path)

    def test_database_service_is_healthy_without_customers(self):
        (self.root / "data" / "osf" / "current").unlink()
        status, _, text = self.base.ask("GET", "/trunk/health")
        self.assertEqual((status, json.loads(text)["levels"]), (200, {}))


class ServerTest(Case):
    def test_deep_socket_answers(self):
        self.root = self.root / ("deep" * 30)
        self.root.mkdir()
        served = Served(self, "app", hello)
        self.assertEqual(served.ask("GET", "/")[2], "hello")

    def test_stop_finishes_the_request_at_work(self):
        begun = threading.Event()

        def slow(environ, start_response):
            begun.set()
            time.sleep(0.3)
            return hello(environ, start_response)

        served = Served(self, "app", slow)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(served.ask("GET", "/")[2]))
        asking.start()
        begun.wait()
        served.server.shutdown()
        served.server.server_close()
        asking.join()
        self.assertEqual(answers, ["hello"])

    def test_second_instance_is_refused(self):
        lock_file = self.root / "karl.lock"
        with open(lock_file, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with self.assertRaisesRegex(SystemExit, "another instance"):
                server.serve(lambda: hello, self.root / "karl.sock", lock_file)


def hello(environ, start_response):
    """Answers `hello`."""
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
