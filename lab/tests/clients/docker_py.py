"""What programs that use docker-py do with a daemon: run by tests/clients.rs, with DOCKER_HOST set."""

import io
import socket
import tarfile
import threading
import time
import unittest

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

IMAGE = "lab"
client = docker.from_env(timeout=60)


def eventually(happens):
    until = time.time() + 30
    while not happens():
        assert time.time() < until, "it does not happen"
        time.sleep(0.02)


class Case(unittest.TestCase):
    def setUp(self):
        self.kept = []

    def tearDown(self):
        for container in self.kept:
            try:
                container.remove(force=True, v=True)
            except NotFound:
                pass

    def start(self, command="sleep 1000", **options):
        container = client.containers.run(IMAGE, command, detach=True, **options)
        self.kept.append(container)
        return container


class Running(Case):
    def test_output_and_removal(self):
        self.assertEqual(client.containers.run(IMAGE, "echo hello world", remove=True), b"hello world\n")
        self.assertEqual(client.containers.list(all=True, filters={"ancestor": IMAGE}), [])

    def test_a_failure_has_its_code_and_its_words(self):
        with self.assertRaises(ContainerError) as failed:
            client.containers.run(IMAGE, ["sh", "-c", "echo broken >&2; exit 7"], remove=True)
        self.assertEqual(failed.exception.exit_status, 7)
        self.assertIn(b"broken", failed.exception.stderr)

    def test_an_image_that_is_nowhere(self):
        with self.assertRaises((ImageNotFound, APIError)):
            client.containers.create("nobody/has-this:0")

    def test_life(self):
        # Only SIGKILL ends this shell, once it has said that its trap is set: until then SIGTERM may be faster.
        deaf = ["sh", "-c", "trap : TERM; echo deaf; while :; do sleep 1; done"]
        container = self.start(deaf, name="life", labels={"tier": "web"})
        self.assertEqual([found.name for found in client.containers.list(filters={"label": "tier=web"})], ["life"])
        container.pause()
        container.reload()
        self.assertEqual(container.status, "paused")
        container.unpause()
        container.rename("second-life")
        before = container.attrs["State"]["StartedAt"]
        container.restart(timeout=0)
        container.reload()
        self.assertNotEqual(before, container.attrs["State"]["StartedAt"])
        container.kill()
        container.reload()
        self.assertEqual((container.status, container.attrs["State"]["ExitCode"]), ("exited", 137))
        said = container.logs().count(b"deaf")
        container.start()
        with self.assertRaises(APIError) as refused:
            container.remove()
        self.assertEqual(refused.exception.status_code, 409)
        eventually(lambda: container.logs().count(b"deaf") > said)
        container.stop(timeout=0)
        self.assertEqual(container.wait()["StatusCode"], 137)

    def test_wait_has_conditions(self):
        api = client.api
        made = api.create_container(IMAGE, ["sh", "-c", "sleep 0.2; exit 4"])
        self.kept.append(client.containers.get(made["Id"]))
        codes = []
        waiter = threading.Thread(target=lambda: codes.append(api.wait(made, condition="next-exit")["StatusCode"]))
        waiter.start()
        time.sleep(0.3)
        api.start(made)
        waiter.join(30)
        self.assertEqual(codes, [4])
        self.assertEqual(api.wait(made, condition="not-running")["StatusCode"], 4)

    def test_many_clients_at_once_lose_nothing(self):
        wrong = []

        def one(number):
            mine = docker.from_env(timeout=60)
            for turn in range(5):
                container = mine.containers.run(IMAGE, ["sh", "-c", f"echo {number}-{turn}; exit {turn}"], detach=True)
                told = (container.wait()["StatusCode"], container.logs())
                if told != (turn, f"{number}-{turn}\n".encode()):
                    wrong.append(told)
                container.remove()

        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertEqual(wrong, [])
        self.assertFalse(any(thread.is_alive() for thread in threads))

    def test_limits_and_update(self):
        container = self.start(mem_limit="64m", cpu_shares=512, nano_cpus=500_000_000, pids_limit=50)
        host = container.attrs["HostConfig"]
        self.assertEqual((host["Memory"], host["CpuShares"], host["PidsLimit"]), (64 << 20, 512, 50))
        container.update(mem_limit="96m", memswap_limit="192m", cpu_shares=256)
        container.reload()
        self.assertEqual(container.attrs["HostConfig"]["Memory"], 96 << 20)
        with self.assertRaises(APIError) as refused:
            client.containers.create(IMAGE, mem_limit="1m")
        self.assertEqual(refused.exception.status_code, 400)

    def test_health(self):
        check = {"test": ["CMD-SHELL", "test -e /tmp"], "interval": 100_000_000, "retries": 1}
        container = self.start(healthcheck=check)
        eventually(lambda: client.api.inspect_container(container.id)["State"]["Health"]["Status"] == "healthy")

    def test_environment_user_and_directory(self):
        text = client.containers.run(
            IMAGE, ["sh", "-c", "echo $A; pwd; id"], environment={"A": "b"}, user="1000:50", working_dir="/tmp", remove=True
        )
        self.assertEqual(text.decode().split("\n")[:3], ["b", "/tmp", "uid=1000 gid=50 groups=50"])


class Streams(Case):
    def test_logs(self):
        container = self.start(["sh", "-c", "echo one; echo two >&2; echo three"])
        container.wait()
        self.assertEqual(container.logs(stdout=True, stderr=False), b"one\nthree\n")
        self.assertEqual(len(container.logs(tail=2).splitlines()), 2)
        self.assertEqual(list(container.logs(stream=True, follow=True, stderr=False)), [b"one\n", b"three\n"])
        self.assertRegex(container.logs(timestamps=True, stdout=False).decode(), r"^\d{4}-\d\d-\d\dT.*Z two\n$")
        self.assertEqual(container.logs(since=int(time.time()) + 100), b"")
        self.assertEqual(container.attach(stream=False, logs=True, stderr=False), b"one\nthree\n")

    def test_attach_reads_and_writes(self):
        container = client.containers.create(IMAGE, "cat", stdin_open=True)
        self.kept.append(container)
        wire = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        container.start()
        wire._sock.sendall(b"typed\n")
        wire._sock.shutdown(socket.SHUT_WR)
        frame = b""
        while len(frame) < 14:
            part = wire._sock.recv(100)
            self.assertTrue(part, frame)
            frame += part
        self.assertEqual(frame, b"\x01\0\0\0\0\0\0\x06typed\n")
        wire._sock.close()

    def test_exec_keeps_its_streams_apart(self):
        container = self.start()
        both = ["sh", "-c", "echo out; echo err >&2; exit 3"]
        for _ in range(20):
            self.assertEqual(container.exec_run(both, demux=True), (3, (b"out\n", b"err\n")))
        self.assertEqual(container.exec_run("echo plain").output, b"plain\n")
        self.assertEqual(container.exec_run("tty", tty=True).output, b"/dev/pts/0\r\n")
        self.assertIn(container.exec_run("no-such-program").exit_code, (126, 127))
        self.assertEqual(container.exec_run(["sh", "-c", "echo $X; pwd"], environment={"X": "y"}, workdir="/tmp").output, b"y\n/tmp\n")

    def test_exec_is_left_by_its_keys(self):
        container = self.start()
        made = client.api.exec_create(container.id, "cat", stdin=True, tty=True)
        wire = client.api.exec_start(made, tty=True, socket=True)._sock
        wire.sendall(b"\x10")
        wire.sendall(b"\x11")
        wire.settimeout(30)
        while wire.recv(100):
            pass
        self.assertTrue(client.api.exec_inspect(made)["Running"])

    def test_events(self):
        begun = int(time.time())
        container = self.start("true")
        container.wait()
        actions = [
            event["Action"]
            for event in client.events(since=begun, until=int(time.time()) + 1, decode=True, filters={"container": container.id})
        ]
        self.assertEqual([action for action in actions if action in ("create", "start", "die")], ["create", "start", "die"])

    def test_stats_and_top(self):
        container = self.start()
        stats = container.stats(stream=False)
        self.assertGreater(stats["memory_stats"]["usage"], 0)
        self.assertGreater(stats["cpu_stats"]["cpu_usage"]["total_usage"], 0)
        processes = container.top()
        self.assertIn("sleep 1000", processes["Processes"][0][-1])
        chosen = container.top(ps_args="-o pid,comm")
        self.assertEqual(chosen["Titles"], ["PID", "COMMAND"])


class Files(Case):
    def test_archives_go_in_and_out(self):
        container = client.containers.create(IMAGE, volumes={"archives": {"bind": "/data"}})
        self.kept.append(container)
        box = io.BytesIO()
        with tarfile.open(fileobj=box, mode="w") as archive:
            entry = tarfile.TarInfo("note")
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"kept"))
        for folder in ("/tmp", "/data"):
            self.assertTrue(container.put_archive(folder, box.getvalue()))
            stream, stat = container.get_archive(f"{folder}/note")
            self.assertEqual((stat["name"], stat["size"]), ("note", 4))
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
                self.assertEqual(archive.extractfile("note").read(), b"kept")
        container.remove()
        client.volumes.get("archives").remove()

    def test_changes_and_images_of_them(self):
        container = self.start(["sh", "-c", "echo x >/made"])
        container.wait()
        self.assertEqual(container.diff(), [{"Path": "/made", "Kind": 1}])
        image = container.commit("made", tag="1")
        try:
            self.assertEqual(client.containers.run("made:1", "cat /made", remove=True), b"x\n")
            whole = b"".join(image.save())
            self.assertEqual(client.images.load(whole)[0].id, image.id)
        finally:
            client.images.remove("made:1", force=True)

    def test_volumes(self):
        volume = client.volumes.create("shared", labels={"for": "tests"})
        client.containers.run(IMAGE, ["sh", "-c", "echo here >/v/file"], volumes={"shared": {"bind": "/v"}}, remove=True)
        text = client.containers.run(IMAGE, "cat /v/file", volumes={"shared": {"bind": "/v", "mode": "ro"}}, remove=True)
        self.assertEqual(text, b"here\n")
        self.assertEqual([found.name for found in client.volumes.list(filters={"label": "for=tests"})], ["shared"])
        user = self.start(volumes={"shared": {"bind": "/v"}})
        with self.assertRaises(APIError) as refused:
            volume.remove()
        self.assertEqual(refused.exception.status_code, 409)
        user.remove(force=True)
        volume.remove()

    def test_a_build(self):
        dockerfile = io.BytesIO(b"FROM lab\nLABEL tier=web\nRUN echo built >/built\nCMD [\"cat\", \"/built\"]\n")
        image, _ = client.images.build(fileobj=dockerfile, tag="built:1", rm=True)
        try:
            self.assertEqual(image.labels["tier"], "web")
            self.assertEqual(client.containers.run("built:1", remove=True), b"built\n")
        finally:
            client.images.remove("built:1", force=True)

    def test_prune(self):
        container = self.start("true", labels={"prune": "me"})
        container.wait()
        pruned = client.containers.prune(filters={"label": "prune=me"})
        self.assertEqual(pruned["ContainersDeleted"], [container.id])


class Daemon(Case):
    def test_what_it_tells_of_itself(self):
        self.assertTrue(client.ping())
        self.assertEqual(client.version()["Os"], "linux")
        self.assertIn("vm", client.info()["Runtimes"])
        self.assertIn("LayersSize", client.df())

    def test_old_and_new_versions_are_spoken(self):
        for version in ("1.24", "1.41", "1.44"):
            docker.DockerClient(base_url=client.api.base_url.replace("http+docker://localhost", HOST), version=version).ping()

    def test_errors_are_docker_s(self):
        for call, code in [
            (lambda: client.containers.get("nothing"), 404),
            (lambda: client.volumes.get("nothing"), 404),
            (lambda: client.networks.get("nothing"), 404),
            (lambda: client.containers.list(filters={"colour": "red"}), 400),
            (lambda: client.api.kill(self.ended().id), 409),
        ]:
            with self.assertRaises(APIError) as refused:
                call()
            self.assertEqual(refused.exception.status_code, code)
            self.assertTrue(refused.exception.explanation)

    def ended(self):
        container = self.start("true")
        container.wait()
        return container


if __name__ == "__main__":
    import os

    HOST = os.environ["DOCKER_HOST"]
    unittest.main(verbosity=2)
