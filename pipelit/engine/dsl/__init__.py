"""Workflows written down: YAML in three forms, compiled to nodes and edges, and back.

Pure. Models are resolved in a catalogue that is handed in; nothing is stored here.

Contract: engine.md §27.
"""

from pipelit.engine.dsl.compile import (
    Checked,
    Compiled,
    check_document,
    compile_document,
    source_slug,
)
from pipelit.engine.dsl.document import Head
from pipelit.engine.dsl.errors import (
    BuildError,
    DslError,
    ModelResolutionError,
    ParseError,
    SourceNotFound,
)
from pipelit.engine.dsl.export import write_document
from pipelit.engine.dsl.fork import FindSource, Source
from pipelit.engine.dsl.models import (
    Caller,
    Catalogue,
    LlmCredential,
    ModelChoice,
    Resolution,
    resolve,
)

__all__ = [
    "BuildError",
    "Caller",
    "Catalogue",
    "Checked",
    "Compiled",
    "DslError",
    "FindSource",
    "Head",
    "LlmCredential",
    "ModelChoice",
    "ModelResolutionError",
    "ParseError",
    "Resolution",
    "Source",
    "SourceNotFound",
    "check_document",
    "compile_document",
    "resolve",
    "source_slug",
    "write_document",
]
