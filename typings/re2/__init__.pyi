# The part of google-re2 that clan-discovery uses; it has no types of its own.

class error(Exception):  # noqa: N801, N818 - its name there
    args: tuple[bytes]

class Options:
    dot_nl: bool
    log_errors: bool
    max_mem: int

class _Match:
    def groups(self, default: str) -> tuple[str, ...]: ...
    def groupdict(self, default: str) -> dict[str, str]: ...

class _Regexp:
    @property
    def programsize(self) -> int: ...
    def fullmatch(self, text: str) -> _Match | None: ...

def compile(pattern: str, options: Options | None = None) -> _Regexp: ...  # noqa: A001 - its name there
