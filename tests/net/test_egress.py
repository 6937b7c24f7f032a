"""The policy's table, address by address, and properties over all addresses."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.net.egress import (
    AddressClass,
    EgressPolicy,
    HostPort,
    classify,
    unwrap,
)

CLOSED = EgressPolicy()

TABLE = [
    # address, allowed to workflows, allowed to providers
    ("127.0.0.1", False, True),
    ("127.255.255.254", False, True),
    ("::1", False, True),
    ("10.1.2.3", False, True),
    ("172.16.0.1", False, True),
    ("172.32.0.1", True, True),
    ("192.168.1.1", False, True),
    ("fd12::1", False, True),
    ("8.8.8.8", True, True),
    ("2606:4700::1111", True, True),
    ("0.0.0.0", False, False),
    ("::", False, False),
    ("169.254.1.1", False, False),
    ("169.254.169.254", False, False),
    ("100.64.0.1", False, False),
    ("100.100.100.200", False, False),
    ("192.0.0.192", False, False),
    ("fd00:ec2::254", False, False),
    ("fe80::1", False, False),
    ("fe80::1%eth0", False, False),
    ("fec0::1", False, False),
    ("224.0.0.1", False, False),
    ("ff02::1", False, False),
    ("255.255.255.255", False, False),
    ("240.0.0.1", False, False),
    ("192.0.2.1", False, False),
    ("198.51.100.1", False, False),
    ("203.0.113.1", False, False),
    ("2001:db8::1", False, False),
    ("3fff::1", False, False),
    ("198.18.0.1", False, False),
    ("2001:2::1", False, False),
    ("::ffff:127.0.0.1", False, True),
    ("::ffff:8.8.8.8", True, True),
    ("::ffff:169.254.169.254", False, False),
    ("::127.0.0.1", False, False),
    ("64:ff9b::8.8.8.8", True, True),
    ("64:ff9b::10.0.0.1", False, True),
    ("64:ff9b::169.254.169.254", False, False),
    ("64:ff9b:1::8.8.8.8", True, True),
    ("64:ff9b:1::7f00:1", False, True),
    ("64:ff9b:1:a9fe:a9:fe00:808:808", False, False),
    ("2002:808:808::1", True, True),
    ("2002:7f00:1::1", False, True),
    ("2002:a9fe:a9fe::1", False, False),
    ("2001:0:808:808:0:0:f7f7:f7f7", True, True),
    ("2001:0:808:808::80ff:fffe", False, True),
    ("2001:0:a9fe:a9fe::f7f7:f7f7", False, False),
]


@pytest.mark.parametrize(("address", "workflow", "provider"), TABLE)
def test_each_address_is_open_to_whom_the_table_says(address, workflow, provider):
    """An address is allowed or refused per caller exactly as the contract's table has it."""
    ip = ip_address(address)

    refused_workflow = CLOSED.find_refused("workflow", address, [ip])
    refused_provider = CLOSED.find_refused("provider", address, [ip])

    assert workflow == (refused_workflow is None)
    assert provider == (refused_provider is None)


@given(st.ip_addresses(v=4))
def test_a_carrier_of_ipv4_is_refused_when_what_it_carries_is(inner: IPv4Address):
    """No IPv6 spelling of an IPv4 address reaches what the plain address may not."""
    plain = CLOSED.find_refused("workflow", "h", [inner]) is None
    number = int(inner)
    carriers = [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address(int(IPv6Address("64:ff9b::")) | number),
        IPv6Address(int(IPv6Address("64:ff9b:1::")) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
        IPv6Address(
            int(IPv6Address("2001:0:808:808::")) | (number ^ 0xFFFFFFFF),
        ),
    ]

    for carrier in carriers:
        assert plain == (CLOSED.find_refused("workflow", "h", [carrier]) is None), carrier


@given(st.ip_addresses())
def test_what_workflows_reach_providers_reach_too(address):
    """The provider column only ever opens more."""
    if CLOSED.find_refused("workflow", "h", [address]) is None:
        assert CLOSED.find_refused("provider", "h", [address]) is None


@given(st.ip_addresses(network=IPv6Network("64:ff9b:1::/48")))
def test_every_form_of_an_address_is_an_address(address):
    """Unwrapping starts with the form itself and ends with IPv4."""
    own, *carried = unwrap(address)

    assert own == address
    assert carried
    assert all(isinstance(form, IPv4Address) for form in carried)


@given(st.lists(st.ip_addresses(), max_size=6))
def test_one_refused_address_refuses_the_host(addresses):
    """A host passes only when all its addresses do; the first refused one is named."""
    refused = CLOSED.find_refused("workflow", "h", addresses)

    bad = [a for a in addresses if CLOSED.find_refused("workflow", "h", [a]) is not None]
    assert refused == (bad[0] if bad else None)


def test_the_metadata_host_is_refused_wherever_it_lies():
    """Any spelling of the metadata host is refused even at a public address."""
    for host in ("metadata.google.internal", "METADATA.google.internal."):
        assert CLOSED.find_refused("provider", host, [ip_address("8.8.8.8")]) is not None


def test_a_listed_network_is_open_to_every_caller_metadata_included():
    """A CIDR of EGRESS_ALLOW opens its addresses on any port."""
    policy = EgressPolicy.parse(["10.0.0.0/8", " 169.254.169.254/32", "fd00::/8", ""])

    for address in ("10.1.1.1", "169.254.169.254", "::ffff:10.0.0.1", "fd00:ec2::254"):
        assert policy.find_refused("workflow", "h", [ip_address(address)]) is None
    assert policy.find_refused("workflow", "h", [ip_address("192.168.0.1")]) is not None


def test_hosts_are_parsed_with_ports_and_own_urls_count_as_listed():
    """Names, addresses, IPv6 in brackets and the operator's URLs become `host:port`."""
    policy = EgressPolicy.parse(
        ["LocalHost:8080", "127.0.0.1:80", "[::1]:443"],
        own_urls=["http://searx:8888/x", "https://gw.example.", ""],
    )

    assert policy.hosts == (
        HostPort("searx", 8888),
        HostPort("gw.example", 443),
        HostPort("localhost", 8080),
        HostPort("127.0.0.1", 80),
        HostPort("::1", 443),
    )
    assert policy.names_on(8888) == ("searx",)


@pytest.mark.parametrize("entry", ["nonsense", "host:", ":80", "host:0", "host:70000", "a/b:80"])
def test_a_bad_entry_is_named(entry):
    """What is neither CIDR nor host:port is refused with the entry in the text."""
    with pytest.raises(ValueError, match=entry.replace("/", ".")):
        EgressPolicy.parse([entry])


def test_classes_are_the_four_columns():
    """One address of each column."""
    assert classify(ip_address("127.0.0.1")) is AddressClass.LOOPBACK
    assert classify(ip_address("10.0.0.1")) is AddressClass.PRIVATE
    assert classify(ip_address("1.1.1.1")) is AddressClass.GLOBAL
    assert classify(ip_address("0.0.0.0")) is AddressClass.OTHER
