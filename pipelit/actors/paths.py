"""Where the product's actors live. A ref is a path, so whoever knows the path can send."""

STORE = "store"
HUB = "/hub"
EXECUTIONS = "/executions"
MANAGER = "/manager"
CHATS = "/chats"
DELIVERY = "/delivery"
EXPIRIES = "/expiries"
ERRORS = "/errors"
ROLL_UP = "/roll_up"
SCHEDULES = "/schedules"
SOCKETS = "/sockets"


def execution(execution_id: str) -> str:
    """Return the path of an execution's actor."""
    return f"{EXECUTIONS}/{execution_id}"
