"""Nodes that ask a model, and the nodes attached to them.

Contract: node-types.md §2, §3, §5, §6.
"""

from typing import Any

from pipelit.engine.specs.notation import (
    MEMORY,
    MODEL,
    OPTIONAL_MODEL,
    PARSER,
    SKILLS,
    TOOLS,
    choice,
    flag,
    integer,
    keys,
    listing,
    mapping,
    need,
    port,
    text,
)
from pipelit.engine.specs.types import TypeSpec

VIOLET = "#8b5cf6"

_MESSAGES = (need("messages", "messages"),)

_AGENT_KEYS: dict[str, Any] = {
    "conversation_memory": flag(False),
    "input_template": text(),
    "max_iterations": integer(50, 1, 200),
    "context_window": integer(None, 1, nullable=True),
    "compacting": choice(None, "summarize"),
    "compacting_trigger": integer(70, 1, 100),
    "compacting_keep": integer(20, 1),
    "workspace_id": integer(nullable=True),
    "inactivity_timeout": integer(600, 1),
    "max_wall_time": integer(7200, 1),
}

AGENTS = (
    TypeSpec(
        component_type="agent",
        label="Agent",
        category="AI",
        icon="robot",
        color=VIOLET,
        role="step",
        description="Language model that reasons and calls tools until it has an answer",
        inputs=_MESSAGES,
        outputs=(port("messages", "messages"), port("output", "string")),
        slots=(MODEL, TOOLS, MEMORY, SKILLS),
        primary_port="output",
        config_schema=keys(**_AGENT_KEYS),
    ),
    TypeSpec(
        component_type="deep_agent",
        label="Deep Agent",
        category="AI",
        icon="brain",
        color="#7c3aed",
        role="step",
        description="Agent with built-in planning, files and subagents",
        inputs=_MESSAGES,
        outputs=(port("messages", "messages"), port("output", "string")),
        slots=(MODEL, TOOLS, SKILLS),
        primary_port="output",
        config_schema=keys(
            **_AGENT_KEYS,
            enable_todos=flag(False),
            enable_filesystem=flag(False),
            filesystem_backend=choice("state", "filesystem", "store", default="state"),
            filesystem_root_dir=text(""),
            allow_network=flag(False),
            subagents=listing(
                keys(
                    ("name", "description", "system_prompt"),
                    name=text(),
                    description=text(),
                    system_prompt=text(),
                    model=text(""),
                )
            ),
        ),
    ),
)

CLASSIFIERS = (
    TypeSpec(
        component_type="categorizer",
        label="Categorizer",
        category="AI",
        icon="tags",
        color=VIOLET,
        role="step",
        description="Assigns the input to one of your categories",
        inputs=_MESSAGES,
        outputs=(port("category", "string"), port("raw", "string")),
        slots=(MODEL, MEMORY, PARSER),
        primary_port="category",
        config_schema=keys(
            categories=listing(keys(("name",), name=text(), description=text(""))),
            input_template=text(),
            fallback_category=text(),
        ),
    ),
    TypeSpec(
        component_type="router",
        label="Router",
        category="AI",
        icon="code-branch",
        color=VIOLET,
        role="step",
        description="Turns a state value into a route",
        inputs=_MESSAGES,
        outputs=(port("route", "string"),),
        slots=(OPTIONAL_MODEL, MEMORY, PARSER),
        primary_port="route",
        config_schema=keys(condition_field=text("route"), condition_expression=text(nullable=True)),
    ),
    TypeSpec(
        component_type="extractor",
        label="Extractor",
        category="AI",
        icon="magnifying-glass-chart",
        color=VIOLET,
        role="step",
        description="Pulls structured data out of text",
        inputs=_MESSAGES,
        outputs=(port("extracted", "object"), port("raw", "string")),
        slots=(MODEL, MEMORY, PARSER),
        primary_port="extracted",
        config_schema=keys(extraction_schema={"type": "object"}, input_template=text()),
    ),
)

ATTACHED = (
    TypeSpec(
        component_type="ai_model",
        label="AI Model",
        category="Models",
        icon="microchip",
        color="#3b82f6",
        role="config",
        description="Chooses provider, credential and model",
        outputs=(port("model", "object"),),
        config_schema=keys(
            context_window=integer(None, 1, nullable=True),
            use_native_search=flag(False),
            system_prompt_fallback=choice("auto", "always", "never", default="auto"),
        ),
    ),
    TypeSpec(
        component_type="output_parser",
        label="Output Parser",
        category="Processing",
        icon="file-export",
        color="#94a3b8",
        role="config",
        description="Turns model text into structured data",
        inputs=(port("text", "string"),),
        outputs=(port("parsed", "object"),),
        config_schema=keys(
            parser_type=choice("json", "regex", "list", default="json"),
            pattern=text(""),
            source_node=text(nullable=True),
            schema=mapping(),
        ),
    ),
    TypeSpec(
        component_type="skill",
        label="Skill",
        category="Tools",
        icon="graduation-cap",
        color="#a855f7",
        role="config",
        description="Gives an agent step-by-step instructions from SKILL.md files",
        outputs=(port("skill_path", "string"),),
        config_schema=keys(
            skill_path=text(""), skill_source=choice("filesystem", default="filesystem")
        ),
    ),
)
