"""Training sequences as life has them: lanes that are missing, words that lag, voice and face of like mood beside the words.

No corpus here has words, voice and face together, so sequences are composed. One item is the *anchor* and gives the target.
With some probability each other lane gets a *companion* from another corpus, of like sentiment; beside words also of none or of
the contrary, since a neutral face does not take back what is said, and where they contradict each other it is the words that
count. What has no companion is missing: unknown, or known to be absent.

Every draw is a function of the generator it is given, so that a training that was killed goes on with the same sequences.
"""

from collections.abc import Mapping

import numpy as np

from models.causal import FLAGS
from stream.messages import LANES, Lane
from train.config import MixtureConfig
from train.pools import Pool
from train.sequences import Floats, Rate, Sample, audio_lane, clip_lanes, nothing, text_lane, vision_lane

_FACE_WINDOWS = (1, 8)  # how long a face is held where nothing else gives the time: any ratio is as likely


class Mixture:
    """Draws training sequences."""

    def __init__(self, pools: Mapping[str, Pool], config: MixtureConfig, *, hop_ns: int, max_steps: int) -> None:
        """Draw from these corpora, which must be those of the configuration."""
        self._names = sorted(pools)
        self._pools, self._config, self._hop_ns, self._max_steps = pools, config, hop_ns, max_steps
        weights = np.array([config.corpora[name] for name in self._names])
        self._weights = weights / weights.sum()
        self._of_lane = {lane: [name for name in self._names if pools[name].kind == lane] for lane in LANES}

    def draw(self, random: np.random.Generator) -> Sample:
        """One sequence."""
        name = self._names[random.choice(len(self._names), p=self._weights)]
        pool = self._pools[name]
        number = pool.draw(random, self._config.balance)
        target = pool.sentiment(number)
        if pool.kind == "clip":
            lanes = clip_lanes(pool.features[number])
        else:
            chosen: dict[Lane, tuple[Pool, int]] = {pool.kind: (pool, number)}
            share = self._config.beside_words if pool.kind == "text" else self._config.beside_others
            for lane in LANES:
                if lane != pool.kind and random.random() < share:
                    companion = self._companion(random, lane, target, beside_words=pool.kind == "text")
                    if companion:
                        chosen[lane] = companion
            lanes = self._composed(random, chosen)
        lanes = {lane: rows[-self._max_steps :] for lane, rows in lanes.items()}
        self._let_words_lag(random, lanes["text"])
        return Sample(lanes, target)

    def _companion(
        self, random: np.random.Generator, lane: Lane, target: float, *, beside_words: bool
    ) -> tuple[Pool, int] | None:
        names = self._of_lane[lane]
        if not names:
            return None
        pool = self._pools[names[random.integers(len(names))]]
        mood = random.random() if beside_words else 1.0
        if mood < self._config.contrary:
            target = -target
        elif mood < self._config.contrary + self._config.neutral:
            target = 0.0
        number = pool.near(random, target, self._config.like)
        return None if number is None else (pool, number)

    def _composed(self, random: np.random.Generator, chosen: Mapping[Lane, tuple[Pool, int]]) -> dict[Lane, Floats]:
        """The chosen items side by side in time: the words, else the recording, else a drawn time, say how long."""
        found = {lane: pool.features[number] for lane, (pool, number) in chosen.items()}
        lanes: dict[Lane, Floats] = {}
        before, after = (int(random.integers(self._silence + 1)) for _ in range(2))
        if "text" in found:
            words = text_lane(found["text"], self._hop_ns, Rate.draw(random))
            lanes["text"] = np.pad(words, ((before, after), (0, 0)), mode="constant")
            lanes["text"][:before] = nothing("text", before, known=True)
            lanes["text"][len(words) + before :, :-FLAGS] = words[-1, :-FLAGS]
            lanes["text"][len(words) + before :, -FLAGS] = 1.0
        sound = audio_lane(found["audio"]) if "audio" in found else None
        if "text" in lanes:
            steps = len(lanes["text"])
        elif sound is not None:
            steps = len(sound)
        else:
            steps = round(float(np.exp(random.uniform(*np.log(_FACE_WINDOWS)))))
        if sound is not None:  # over and over, from anywhere, where there is more to say
            first = int(random.integers(len(sound))) if steps != len(sound) else 0
            lanes["audio"] = sound[(first + np.arange(steps)) % len(sound)]
        if "vision" in found:
            lanes["vision"] = vision_lane(found["vision"], steps, random)
        for lane in LANES:
            if lane not in lanes:
                lanes[lane] = nothing(lane, steps, known=random.random() < self._config.known_absent)
        return lanes

    def _let_words_lag(self, random: np.random.Generator, text: Floats) -> None:
        """Make the newest text unknown, as it is before a recogniser has come so far."""
        if random.random() >= self._config.lag:
            return
        longest = round(self._config.max_lag_s * 1e9 / self._hop_ns)
        hide_newest(text, int(random.integers(longest + 1)))

    @property
    def _silence(self) -> int:
        return round(self._config.max_silence_s * 1e9 / self._hop_ns)


def hide_newest(text: Floats, windows: int) -> None:
    """Make the last windows of a text lane unknown, in place: they hold on to the words before them."""
    if windows <= 0:
        return
    known = max(0, len(text) - windows)
    text[known:, :-FLAGS] = text[known - 1, :-FLAGS] if known else 0.0
    text[known:, -FLAGS:] = 0.0
