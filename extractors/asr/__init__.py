"""Speech recognition: sound in; words with times, provisional or final, and a watermark out."""

from extractors.asr.recogniser import Recogniser
from extractors.errors import Unavailable


def create(engine: str, *, model: str, language: str, device: str) -> tuple[Recogniser, str | None]:
    """Make a recogniser.

    Args:
        engine: `whisper` (downloads the model if need be), `sphinx`, or `auto`: Whisper if its model is on this machine, else
            PocketSphinx.
        model: The Whisper size, as in `base`.
        language: As in `en`; `auto` lets Whisper tell. PocketSphinx knows English only.
        device: `cpu` or `cuda`, for Whisper.

    Returns:
        The recogniser, and what a user should know about the choice, if anything.

    Raises:
        Unavailable: The engine asked for (with `auto`, PocketSphinx) cannot be had.
    """
    notice = None
    if engine in ("auto", "whisper"):
        from extractors.asr.whisper import WhisperRecogniser

        try:
            spoken = None if language == "auto" else language
            return WhisperRecogniser(model, device=device, language=spoken, download=engine == "whisper"), None
        except Unavailable as error:
            if engine == "whisper":
                raise
            notice = f"words come from PocketSphinx (English, many errors), because {error}"
    if language not in ("auto", "en"):
        raise Unavailable(f"PocketSphinx knows English only, not {language}; use --asr whisper")
    from extractors.asr.sphinx import SphinxRecogniser

    return SphinxRecogniser(), notice
