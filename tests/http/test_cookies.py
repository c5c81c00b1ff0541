"""Cookies: what is read out of a request, and what may be set in a response."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError
from asyncnet.http.cookies import delete_cookie, read_all_cookies, read_cookies, set_cookie
from asyncnet.http.messages import Headers


def cookies(*fields: str) -> list[tuple[str, str]]:
    return read_all_cookies(Headers([("Cookie", field) for field in fields]))


def set_one(*args: Any, **options: Any) -> str:
    headers = Headers()
    set_cookie(headers, *args, **{"secure": False, **options})
    return headers["set-cookie"]


class TestReading:
    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            ("", []),
            ("a=1", [("a", "1")]),
            ("a=1; b=2", [("a", "1"), ("b", "2")]),
            ("a=1;b=2 ;\tc = 3", [("a", "1"), ("b", "2"), ("c", "3")]),
            ("a=b=c", [("a", "b=c")]),
            ("a=", [("a", "")]),
            ('a="1"', [("a", "1")]),
            ('a="', [("a", '"')]),
            ('a="1', [("a", '"1')]),
            ('a="\\101"', [("a", "\\101")]),
            ("a=%20", [("a", "%20")]),
            ("; ;;", []),
            ("alone", []),
            ("=1", []),
            ("a=1; =2; alone; [b]=3; c,d=4", [("a", "1"), ("[b]", "3"), ("c,d", "4")]),
            ("\u00e4=\u00f6", [("\u00e4", "\u00f6")]),
            ("$Version=1; a=1", [("$Version", "1"), ("a", "1")]),
        ],
    )
    def test_a_field_is_read_as_it_comes(self, field: str, expected: list[tuple[str, str]]) -> None:
        assert cookies(field) == expected

    def test_a_quotation_mark_does_not_reach_over_a_semicolon(self) -> None:
        assert cookies('theme="dark; session=secret; end="') == [
            ("theme", '"dark'),
            ("session", "secret"),
            ("end", '"'),
        ]

    def test_the_first_of_a_name_counts(self) -> None:
        headers = Headers([("Cookie", "a=long path; b=1"), ("Cookie", "a=short path")])
        assert read_cookies(headers) == {"a": "long path", "b": "1"}
        assert len(read_all_cookies(headers)) == 3

    def test_without_a_field_there_are_none(self) -> None:
        assert read_cookies(Headers()) == {}

    @settings(deadline=None)
    @given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")))
    def test_no_field_is_refused(self, field: str) -> None:
        for name, _ in cookies(
            *([field] if all(char >= " " and not "\x7f" <= char < "\x80" for char in field) else [])
        ):
            assert name


class TestSetting:
    def test_a_cookie_is_kept_from_scripts_and_other_sites_unless_told(self) -> None:
        assert set_one("a", "1") == "a=1; Path=/; HttpOnly; SameSite=Lax"
        assert set_one("a", "1", httponly=False, samesite=None, path=None) == "a=1"

    def test_everything_can_be_said(self) -> None:
        moment = datetime(2030, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
        assert set_one(
            "a",
            "1",
            secure=True,
            max_age=60,
            expires=moment,
            path="/x",
            domain="example.com",
            samesite="None",
            partitioned=True,
        ) == (
            "a=1; Expires=Wed, 02 Jan 2030 03:04:05 GMT; Max-Age=60; Domain=example.com; Path=/x; Secure; HttpOnly; "
            "SameSite=None; Partitioned"
        )

    def test_several_stand_beside_each_other(self) -> None:
        headers = Headers()
        set_cookie(headers, "a", "1", secure=True)
        set_cookie(headers, "b", "2", secure=True)
        assert [field[:3] for field in headers.get_all("set-cookie")] == ["a=1", "b=2"]

    @pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "a,b", "a\r\nb", "a\x00", "\u00e4", "a\n", '"a"'])
    def test_a_name_is_a_token(self, name: str) -> None:
        with pytest.raises(LocalProtocolError):
            set_one(name, "1")

    @pytest.mark.parametrize(
        "value",
        ["a b", "a;b", "a; Domain=evil", "a,b", 'a"', "a\\", "a\r\nX: y", "a\n", "\x00", "\x7f", "\u00e4", "\u20ac"],
    )
    def test_a_value_holds_nothing_that_would_split_it(self, value: str) -> None:
        with pytest.raises(LocalProtocolError):
            set_one("a", value)

    @pytest.mark.parametrize(
        "options",
        [
            {"path": "x"},
            {"path": ""},
            {"path": "/;Domain=evil"},
            {"path": "/\r\n"},
            {"path": "/\u00e4"},
            {"domain": ""},
            {"domain": ".example.com"},
            {"domain": "example.com; Path=/"},
            {"domain": "a..b"},
            {"domain": "-a"},
            {"domain": "a_b"},
            {"domain": "a\n"},
            {"domain": ".".join(["a" * 63] * 4)},
            {"samesite": "lax"},
            {"samesite": "Lax; Domain=x"},
            {"samesite": "None"},
            {"partitioned": True},
            {"expires": datetime(2030, 1, 1)},
            {"expires": datetime(1600, 1, 1, tzinfo=UTC)},
        ],
    )
    def test_what_would_split_it_or_be_dropped_by_browsers_is_refused(self, options: dict[str, Any]) -> None:
        headers = Headers()
        with pytest.raises(LocalProtocolError):
            set_cookie(headers, "a", "1", **{"secure": False, **options})
        assert not len(headers)

    def test_more_than_browsers_keep_is_refused(self) -> None:
        assert set_one("a", "x" * 4095)
        with pytest.raises(LocalProtocolError):
            set_one("a", "x" * 4096)

    @pytest.mark.parametrize("name", ["__Secure-a", "__secure-a", "__Host-a", "__HOST-a"])
    def test_a_name_that_promises_secure_is_so(self, name: str) -> None:
        assert "Secure;" in set_one(name, "1", secure=True)
        with pytest.raises(LocalProtocolError):
            set_one(name, "1")

    @pytest.mark.parametrize("options", [{"path": "/x"}, {"path": None}, {"domain": "example.com"}])
    def test_a_name_that_promises_one_host_is_so(self, options: dict[str, Any]) -> None:
        assert set_one("__Secure-a", "1", secure=True, **options)
        with pytest.raises(LocalProtocolError):
            set_one("__Host-a", "1", secure=True, **options)

    @settings(deadline=None)
    @given(st.from_regex(r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z"), st.text(alphabet=st.characters(codec="ascii")))
    def test_what_is_set_is_read(self, name: str, value: str) -> None:
        try:
            field = set_one(name, value)
        except LocalProtocolError:
            return
        assert cookies(field.partition(";")[0]) == [(name, value)]


class TestDeleting:
    def test_a_deleted_cookie_has_ended_long_ago(self) -> None:
        headers = Headers()
        delete_cookie(headers, "a", path="/x", domain="example.com")
        assert headers["set-cookie"] == (
            "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Domain=example.com; Path=/x; HttpOnly; SameSite=Lax"
        )

    @pytest.mark.parametrize("name", ["__Host-a", "__secure-a"])
    def test_one_with_a_promise_is_deleted_with_it(self, name: str) -> None:
        headers = Headers()
        delete_cookie(headers, name)
        assert "; Secure" in headers["set-cookie"]
