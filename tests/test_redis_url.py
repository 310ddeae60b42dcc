"""What a Redis URL may say, and that no secret of it is ever shown."""

from __future__ import annotations

import pytest

from router.config.problems import hidden_line, redacted_url
from router.config.redis_url import parse_redis_url, safe_url
from router.control.link import by_hand


def test_every_kind_says_where_and_who() -> None:
    assert parse_redis_url("redis://h").addresses == (("h", 6379),)
    assert parse_redis_url("redis://[::1]:7000/2").db == 2
    assert parse_redis_url("unix:///run/redis.sock?db=3").path == "/run/redis.sock"
    sentinel = parse_redis_url("rediss+sentinel://u:p%40@a:1,b/routing/1?sentinel_password_file=/s&ssl_ca_certs=/ca")
    assert (sentinel.addresses, sentinel.primary, sentinel.db) == ((("a", 1), ("b", 26379)), "routing", 1)
    assert (sentinel.account.password, sentinel.sentinel.password_file) == ("p@", "/s")
    assert sentinel.tls == {"ssl_ca_certs": "/ca"}
    assert parse_redis_url("redis+cluster://a:1,b:2?password_file=/s").account.password_file == "/s"


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://h", "begins with one of redis://"),
        ("redis://a,b", "several hosts need"),
        ("redis+sentinel://a:1", "names the primary"),
        ("redis+cluster://a/1", "no databases but 0"),
        ("redis://a?ssl_ca_certs=/ca", "begin the URL with rediss"),
        ("rediss://a?ssl_certfile=/c", "both ssl_certfile and ssl_keyfile"),
        ("redis://:p@a?password_file=/s", "not both"),
        ("redis://a?pasword=x", "has no option 'pasword'"),
        ("redis://u@a", "needs a password too"),
        ("redis://a:99999", "up to 65535"),
    ],
)
def test_a_bad_one_is_refused_with_the_remedy(url: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        parse_redis_url(url)


def test_a_password_is_never_shown() -> None:
    for url in (
        "redis://u:secret@h/0", "redis://:secret@h", "redis://h?password=secret",
        "redis+sentinel://a,b/n?sentinel_password=secret&db=1",
    ):  # fmt: skip
        assert "secret" not in safe_url(url)
    assert safe_url("redis://h:1/0?password_file=/run/s") == "redis://h:1/0?password_file=/run/s"


def test_what_a_person_may_type_instead() -> None:
    assert by_hand("redis://:secret@h:1/2", "GET x") == "redis-cli -u 'redis://:***@h:1/2' GET x"
    assert by_hand("rediss+cluster://a:1,b:2", "GET x") == "redis-cli -c --tls -h a -p 1 GET x"
    assert by_hand("redis+sentinel://a:1/main", "GET x") == "ring-router redis GET x"


def test_passwords_in_the_query_are_not_shown_either() -> None:
    url = "redis+sentinel://h/main?password=secret&sentinel_password=secret&password_file=/p"
    hidden = "redis+sentinel://h/main?password=***&sentinel_password=***"
    assert redacted_url(url) == f"{hidden}&password_file=/p"
    assert "secret" not in hidden_line(f"redis: '{url}'")
    assert len(hidden_line(url)) == len(url)
