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
    assert by_hand("redis://h", "GET x") == "redis-cli -u redis://h:6379/0 GET x"
    assert by_hand("redis://:secret@[::1]:1/2", "GET x") == "redis-cli -u 'redis://[::1]:1/2' --askpass GET x"
    assert by_hand("redis://h?db=3&username=u&password=secret", "PING") == (
        "redis-cli -u redis://h:6379/3 --user u --askpass PING"
    )
    assert by_hand("rediss+cluster://a:1,b:2", "GET x") == "redis-cli -c -h a -p 1 --tls GET x"
    assert by_hand("redis+sentinel://a:1/main", "GET x") == "ring-router redis GET x"


def test_what_a_person_may_type_instead_for_a_socket() -> None:
    assert by_hand("unix:///run/redis.sock", "GET x") == "redis-cli -s /run/redis.sock -n 0 GET x"
    assert by_hand("unix:///run/my%20redis.sock?db=3&username=u&password_file=/run/the%20secret", "GET x") == (
        "REDISCLI_AUTH=\"$(cat '/run/the secret')\" redis-cli -s '/run/my redis.sock' -n 3 --user u GET x"
    )


def test_what_a_person_may_type_instead_over_tls() -> None:
    assert by_hand("rediss://h:1/2?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem", "GET x") == (
        "redis-cli -u rediss://h:1/2 --tls --cacert /ca.pem --cert /c.pem --key /k.pem GET x"
    )
    assert by_hand("rediss://h?ssl_cert_reqs=none&username_file=/u&password_file=/p", "GET x") == (
        'REDISCLI_AUTH="$(cat /p)" redis-cli -u rediss://h:6379/0 --tls --insecure --user "$(cat /u)" GET x'
    )


def test_passwords_in_the_query_are_not_shown_either() -> None:
    url = "redis+sentinel://h/main?password=secret&sentinel_password=secret&password_file=/p"
    hidden = "redis+sentinel://h/main?password=***&sentinel_password=***"
    assert redacted_url(url) == f"{hidden}&password_file=/p"
    assert "secret" not in hidden_line(f"redis: '{url}'")
    assert len(hidden_line(url)) == len(url)
