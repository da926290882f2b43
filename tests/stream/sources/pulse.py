"""A sound server of our own to test with: what is played into it is what a microphone hears, through PortAudio and ALSA."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_PLUGIN = "libasound_module_pcm_pulse.so"


def missing() -> str | None:
    """Which Debian packages this machine lacks for it; None if it has all."""
    found = {
        "pulseaudio": shutil.which("pulseaudio"),
        "pulseaudio-utils": shutil.which("pacat") and shutil.which("paplay") and shutil.which("pactl"),
        "libasound2-plugins": any(Path("/usr").glob(f"lib*/**/alsa-lib/{_PLUGIN}")),
    }
    return " ".join(package for package, there in found.items() if not there) or None


class PulseServer:
    """A private PulseAudio daemon with a sink that nobody hears, whose monitor is the one microphone.

    Example:
        server = PulseServer(tmp_path)
        server.start()
        subprocess.run([..., "-m", "stream.live", "--source", "mic"], env={**os.environ, **server.env})
        server.play(path)
        server.stop()

    Attributes:
        env: The variables under which PortAudio (ALSA's plugin) and PulseAudio's programs use this server and no other.
    """

    def __init__(self, folder: Path) -> None:
        """Keep its files in `folder`."""
        self._folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None
        self._silence: subprocess.Popen[bytes] | None = None
        configuration = folder / "asound.conf"
        configuration.write_text("pcm.!default { type pulse }\npcm.pulse { type pulse }\nctl.!default { type pulse }\n")
        self.env = {
            "ALSA_CONFIG_PATH": str(configuration),
            "PULSE_COOKIE": str(folder / "cookie"),
            "PULSE_SERVER": f"unix:{folder / 'socket'}",
        }

    def start(self) -> None:
        """Start it, if it does not run, and wait until it keeps time."""
        if self._daemon:
            return
        modules = (
            f"module-native-protocol-unix socket={self._folder / 'socket'} auth-anonymous=1",
            "module-null-sink sink_name=speaker rate=48000",
        )
        own = {name: str(self._folder) for name in ("HOME", "PULSE_RUNTIME_PATH", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")}
        self._daemon = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--log-target=stderr"]
            # Where the server dies while it shares memory with a client, the client's library now and then hangs for good.
            + ["--disable-shm=yes", "--enable-memfd=no"]
            + [f"--load={module}" for module in modules],
            env={**os.environ, **self.env, **own},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait(lambda: "speaker" in self._pactl("list", "short", "sinks"))
        # A sink that plays nothing moves in steps of two seconds; a real microphone does not.
        self._silence = self._run("pacat", "--raw", "--latency-msec=20", "/dev/zero")
        self._wait(lambda: any(0 < int(us) < 50_000 for us in re.findall(r"Latency: (\d+)", self._pactl("list", "sinks"))))

    def stop(self) -> None:
        """Kill it, as if the microphone were pulled out."""
        for process in (self._silence, self._daemon):
            if process:
                process.kill()
                process.wait()
        self._daemon = self._silence = None

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        """Play a WAV file; what is returned ends when it has been played."""
        return self._run("paplay", "--latency-msec=500", str(path))

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env={**os.environ, **self.env}, stderr=subprocess.DEVNULL)

    def _pactl(self, *arguments: str) -> str:
        asked = subprocess.run(
            ["pactl", *arguments], env={**os.environ, **self.env, "LC_ALL": "C"}, capture_output=True, text=True, check=False
        )
        return asked.stdout

    def _wait(self, come: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 10
        while not come():
            if time.monotonic() > end_s:
                self.stop()
                raise RuntimeError("pulseaudio does not start")
            time.sleep(0.05)
