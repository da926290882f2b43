"""Speech recognition: sound in; words with times, provisional or final, and a watermark out."""

from extractors.asr.recogniser import MAX_STRETCH_NS, Recogniser
from extractors.errors import Unavailable


def create(
    engine: str,
    *,
    model: str | None,
    compute_type: str | None = None,
    language: str,
    device: str,
    max_stretch_ns: int = MAX_STRETCH_NS,
) -> tuple[Recogniser, str | None]:
    """Make a recogniser.

    Args:
        engine: `whisper` (downloads the model if need be), `sphinx`, or `auto`: Whisper if its model is on this machine, else
            PocketSphinx.
        model: The Whisper size, as in `base`; None chooses by device, and the notice says which and why.
        compute_type: What Whisper computes in, as in `int8`; None chooses by device.
        language: As in `en`; `auto` lets Whisper tell. PocketSphinx knows English only.
        device: `cpu` or `cuda`, for Whisper.
        max_stretch_ns: Speech without a pause is cut after so long; it bounds how long words can be outstanding.

    Returns:
        The recogniser, and what a user should know about the choice, if anything.

    Raises:
        Unavailable: The engine asked for (with `auto`, PocketSphinx) cannot be had.
    """
    notice = None
    if engine in ("auto", "whisper"):
        from extractors.asr.whisper import WhisperRecogniser

        try:
            recogniser = WhisperRecogniser(
                model,
                device=device,
                compute_type=compute_type,
                language=None if language == "auto" else language,
                download=engine == "whisper",
                max_stretch_ns=max_stretch_ns,
            )
            return recogniser, recogniser.notice
        except Unavailable as error:
            if engine == "whisper":
                raise
            notice = f"words come from PocketSphinx (English, many errors), because {error}"
    if language not in ("auto", "en"):
        raise Unavailable(f"PocketSphinx knows English only, not {language}; use --asr whisper")
    from extractors.asr.sphinx import SphinxRecogniser

    return SphinxRecogniser(max_stretch_ns=max_stretch_ns), notice
