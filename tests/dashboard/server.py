"""A real TensorBoard with the tab."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from tests import helper

# As the command `tensorboard`, also where the package is not installed; TensorFlow
# would only make it start later.
SERVE = """
import sys
sys.argv[0] = "tensorboard"
sys.modules["tensorflow"] = None
from tensorboard import default, program
from keras_gradwatch_tensorboard.plugin import GradientsPlugin
plugins = default.get_plugins()
plugins += [] if GradientsPlugin in plugins else [GradientsPlugin]
assert "keras" not in sys.modules and "keras_gradwatch" not in sys.modules
board = program.TensorBoard(plugins)
board.configure(sys.argv)
board.main()
"""


class Server:
    """TensorBoard in a process of its own.

    Args:
        logdir: Its directory.
        output: File for what it prints.
        load_fast: "true" or "false".
    """

    def __init__(self, logdir, output, load_fast):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.url, self.output = f"http://127.0.0.1:{port}", output
        flags = {"logdir": logdir, "host": "127.0.0.1", "port": port}
        flags |= {"load_fast": load_fast, "reload_interval": 1}
        with open(output, "w") as file:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    SERVE,
                    *(f"--{k}={v}" for k, v in flags.items()),
                ],
                cwd=helper.ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read(self, route):
        """What it answers, a str."""
        with self._opener.open(f"{self.url}/data/{route}", timeout=20) as answer:
            return answer.read().decode()

    def tab(self):
        """What TensorBoard knows of the tab, a dict."""
        return json.loads(self.read("plugins_listing"))["gradwatch"]

    def wait(self):
        """Waits until it answers."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if self.tab():
                    return
            time.sleep(0.1)
        raise AssertionError(self.output.read_text())

    def stop(self):
        # To end by itself, it would wait until the browser drops its connections.
        self.process.kill()
        self.process.wait(timeout=60)
