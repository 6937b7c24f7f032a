"""How the server reaches out: the egress policy, the checked resolver, the HTTP client."""
