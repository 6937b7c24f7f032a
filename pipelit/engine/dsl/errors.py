"""Why a document does not compile. Contract: engine.md §27.2, workflows.md "validate-dsl"."""

from typing import ClassVar

from pipelit.errors import PipelitError


class DslError(PipelitError):
    """A document does not compile. `problems` are the contract's texts, in the document's order."""

    stage: ClassVar[str]

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems

    def staged(self) -> list[str]:
        """Return the problems with the stage in front, as validation shows them."""
        return [f"{self.stage} error: {problem}" for problem in self.problems]


class ParseError(DslError):
    """The text is not a document of any form."""

    stage = "Parse"


class ModelResolutionError(DslError):
    """A model spec leads to no model."""

    stage = "Model resolution"


class BuildError(DslError):
    """The document makes no sound graph."""

    stage = "Graph build"


class SourceNotFound(DslError):
    """The workflow a fork starts from is not there, or not visible to who asks."""

    stage = ""

    def __init__(self, slug: str) -> None:
        super().__init__(f"Source workflow '{slug}' not found")

    def staged(self) -> list[str]:
        """Return the problem as it is: it lies outside the document."""
        return list(self.problems)


class UnreadableKey(Exception):
    """A key of a step has a value nobody can use; the text says which and why."""
