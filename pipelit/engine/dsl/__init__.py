"""Workflows written down: YAML in steps form or graph form, compiled to nodes and edges.

Pure. Models are resolved in a catalogue that is handed in; nothing is stored here.

Contract: engine.md §27.
"""

from pipelit.engine.dsl.compile import Checked, Compiled, check_document, compile_document
from pipelit.engine.dsl.document import Head
from pipelit.engine.dsl.errors import BuildError, DslError, ModelResolutionError, ParseError
from pipelit.engine.dsl.export import write_document
from pipelit.engine.dsl.models import Caller, Catalogue, LlmCredential, ModelChoice

__all__ = [
    "BuildError",
    "Caller",
    "Catalogue",
    "Checked",
    "Compiled",
    "DslError",
    "Head",
    "LlmCredential",
    "ModelChoice",
    "ModelResolutionError",
    "ParseError",
    "check_document",
    "compile_document",
    "write_document",
]
