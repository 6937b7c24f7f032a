"""Is a provider at hand? Models on one's own machines cost nothing.

Contract: engine.md §25.2, §32.
"""

from pipelit.llm.models import host_of
from pipelit.net.egress import AddressClass, classify, unwrap
from pipelit.net.resolver import ResolveError, Resolver

_OWN = frozenset({AddressClass.LOOPBACK, AddressClass.PRIVATE})


async def is_local(base_url: str, resolver: Resolver) -> bool:
    """Tell whether every address of *base_url*'s host is loopback or private.

    An empty URL, which means the provider's own service, and a host that cannot be resolved are
    not local.
    """
    host = host_of(base_url)
    if not host:
        return False
    try:
        addresses = await resolver.resolve(host)
    except ResolveError:
        return False
    return all(classify(form) in _OWN for address in addresses for form in unwrap(address))
