"""What reading JSON of unknown make can raise; msgspec's own errors are but one of three."""

from typing import Final

import msgspec

BAD_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""No JSON or of another shape, no UTF-8, nested too deeply."""
