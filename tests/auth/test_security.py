"""Passwords, addresses and opaque tokens, without a database."""

import asyncio
import threading
import time

import pytest

from app.auth.exceptions import TooManyPasswords
from app.auth.security.identity import email_key, is_username, normalize_email, username_key
from app.auth.security.passwords import MAX_WAIT, HashPool, PasswordHasher, PasswordPolicy
from app.auth.security.tokens import new_token, successor, token_hash


def hasher(rounds: int = 1, workers: int = 2) -> PasswordHasher:
    return PasswordHasher(memory_kib=64, rounds=rounds, parallelism=1, workers=workers)


class TestPasswordPolicy:
    policy = PasswordPolicy(12, "Acme Shop", "api.widgets.example")

    def kind(self, password: str) -> str | None:
        fault = self.policy.fault(password, email="al.gore+news@example.com", username="Bob_Smith")
        return fault[0] if fault else None

    @pytest.mark.parametrize(
        "password",
        [
            "unbelievable",  # of the list
            "UnBelievable",
            "administrator",
            "password2026",
            "Password123!",
            "!!dragon2026",
            "123456789012",
            "098765432109",
            "abcdefghijklm",
            "lkjhgfdsapoiu",
            "aaaaaaaaaaaa",
            "            ",
            "passwordpassword",
            "kX4!" * 5,
            "x9" * 128,
        ],
    )
    def test_what_is_easy_to_guess(self, password: str) -> None:
        assert self.kind(password) == "password_too_common"

    @pytest.mark.parametrize(
        "password",
        [
            "my name is bobsmith",
            "BOB-SMITH likes tea",
            "\uff42\uff4f\uff42 smith likes tea",
            "al.gore's invention",
            "algorenews at night",
            "I work for ACMESHOP",
            "acme shop employee",
            "widgets for everyone",
            "api.widgets.example!",
        ],
    )
    def test_what_names_the_account_or_the_service(self, password: str) -> None:
        assert self.kind(password) == "password_contains_name"

    def test_what_is_short(self) -> None:
        assert self.kind("eleven char") == "password_too_short"

    @pytest.mark.parametrize(
        "password",
        [
            "correct horse battery staple",
            "summer-4829-1738-2291",  # a common word with more behind it than it has itself
            "api of an example",  # parts that are too short, and a top-level domain
            "twelve chars",
            " leading and trailing ",
            "correcthorse1234",
        ],
    )
    def test_all_else_is_accepted(self, password: str) -> None:
        assert self.kind(password) is None

    def test_short_names_do_not_count(self) -> None:
        assert PasswordPolicy(12, "API", "a.io").fault("annapurna at dawn", email="ann@a.io", username="ann") is None

    def test_a_normal_form_cannot_lengthen_or_shorten_a_password_past_the_limits(self) -> None:
        assert self.kind("e\u0301a\u0301o\u0301i\u0301u\u0301y\u0301") == "password_too_short"
        assert self.kind("ﷺ☂") == "password_too_short"
        assert self.kind("ﷺ☂" * 14) == "password_too_long"

    def test_the_least_length_is_met_by_what_is_generated(self) -> None:
        for length in (8, 12, 64):
            policy = PasswordPolicy(length, "Acme Shop", "api.widgets.example")
            made = policy.generate()
            assert len(made) >= max(16, length)
            assert policy.fault(made, email="ann@example.com", username="ann") is None

    def test_a_long_one_costs_little(self) -> None:
        for password in ("ab" * 127 + "c", "1" * 255 + "a", "!a" * 127, "ﷺ" * 256):
            began = time.process_time()
            self.kind(password)
            assert time.process_time() - began < 1, "a hundred times of what it takes"


class TestEmailKey:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("bob@example.com", "BOB@EXAMPLE.COM"),
            ("jörg@example.com", "jo\u0308rg@example.com"),
            ("jörg@example.com", "JÖRG@Example.Com"),
            ("strasse@example.com", "STRAßE@example.com"),
            ("bob@bücher.example.com", "bob@xn--bcher-kva.example.com"),
            ("file@example.com", "ﬁle@example.com"),
            ("bob@example.com", "\uff42\uff4f\uff42@example.com"),
        ],
    )
    def test_spellings_of_one_address_share_a_key(self, one: str, other: str) -> None:
        assert email_key(one) == email_key(other)

    @pytest.mark.parametrize("other", ["bobby@example.com", "bob@example.org", "b.ob@example.com", "bob+1@example.com"])
    def test_other_addresses_do_not(self, other: str) -> None:
        assert email_key("bob@example.com") != email_key(other)

    @pytest.mark.parametrize(
        "text", ["", "bob", "bob@", "@example.com", "bob@localhost", "Bob <bob@example.com>", "a\0b@example.com"]
    )
    def test_what_is_no_address_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="not a valid e-mail address"):
            email_key(text)

    @pytest.mark.parametrize("code", [0x034F, 0x115F, 0x180B, 0x200B, 0x2060, 0x3164, 0xFE0F, 0xFFA0, 0xE0100])
    def test_a_character_nobody_sees_makes_no_other_address(self, code: int) -> None:
        with pytest.raises(ValueError, match="not a valid e-mail address"):
            normalize_email(f"bo{chr(code)}b@example.com")

    def test_a_key_that_would_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not a valid e-mail address"):
            normalize_email("ﷺ" * 21 + "@example.com")

    def test_the_stored_address_keeps_its_spelling(self) -> None:
        assert normalize_email("Bob.Smith@EXAMPLE.com") == "Bob.Smith@example.com"


class TestUsername:
    def test_case_does_not_make_another_name(self) -> None:
        assert username_key("Bob") == username_key("bOB")

    @pytest.mark.parametrize("name", ["bob", "B.o-b_1", "x" * 32])
    def test_allowed(self, name: str) -> None:
        assert is_username(name)

    @pytest.mark.parametrize("name", ["bo", "x" * 33, "bob@home", "bob smith", "bób", "bob\n"])
    def test_refused(self, name: str) -> None:
        assert not is_username(name)


class TestPasswords:
    async def test_right_and_wrong(self) -> None:
        stored = await hasher().hash("secret words")

        assert stored.startswith("$argon2id$")
        assert (await hasher().verify("secret words", stored)).ok
        assert not (await hasher().verify("Secret words", stored)).ok

    async def test_one_password_typed_in_two_unicode_forms(self) -> None:
        stored = await hasher().hash("pässword")

        assert (await hasher().verify("pa\u0308ssword", stored)).ok

    async def test_other_parameters_ask_for_a_new_hash(self) -> None:
        stored = await hasher(rounds=1).hash("secret words")

        verified = await hasher(rounds=2).verify("secret words", stored)

        assert verified.ok
        assert verified.new_hash is not None
        assert "t=2" in verified.new_hash
        assert (await hasher(rounds=2).verify("secret words", verified.new_hash)).new_hash is None

    @pytest.mark.parametrize("password", ["", "x" * 10_000, "secret words"])
    async def test_no_account_is_never_right(self, password: str) -> None:
        assert await hasher().verify(password, None) == (False, None)

    async def test_what_is_too_long_is_never_right(self) -> None:
        stored = await hasher().hash("")

        assert not (await hasher().verify("x" * 129, stored)).ok

    async def test_an_unknown_account_costs_as_much(self) -> None:
        slow = PasswordHasher(memory_kib=19456, rounds=4, parallelism=1, workers=1)
        stored = await slow.hash("secret words")
        await slow.verify("warm up", None)

        async def cost(known: str | None) -> float:
            start = time.process_time()  # what else the machine does must not count
            await slow.verify("wrong words", known)
            return time.process_time() - start

        known = min([await cost(stored) for _ in range(5)])
        unknown = min([await cost(None) for _ in range(5)])
        assert 0.1 < known / unknown < 10  # without a hash to compare with it is a thousand

    async def test_nobody_waits_long_and_those_refused_cost_nothing(self) -> None:
        pool, done = HashPool(1), list[int]()
        release = threading.Event()

        async def one(number: int) -> None:
            await pool.run(lambda: done.append(number) if release.wait(60) else None)

        waiting = [asyncio.create_task(one(number)) for number in range(200)]
        await asyncio.wait(waiting, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        release.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)

        errors = [outcome for outcome in outcomes if outcome]
        assert len(done) == int(MAX_WAIT / 0.05) + 1
        assert len(errors) == 200 - len(done)
        assert all(isinstance(error, TooManyPasswords) and error.retry_after == 3 for error in errors)
        await pool.run(lambda: done.append(-1))
        assert done[-1] == -1

    async def test_whose_turn_does_not_come_in_time_is_refused(self) -> None:
        """Each takes far longer than the average so far says."""
        pool, done = HashPool(1), list[int]()
        release = threading.Event()
        running = asyncio.create_task(pool.run(lambda: release.wait(60)))
        await asyncio.sleep(0)
        with pytest.raises(TooManyPasswords):
            await pool.run(lambda: done.append(1))
        release.set()
        await running
        assert done == []

    async def test_the_work_of_who_leaves_is_not_done(self) -> None:
        pool, done = HashPool(1), list[str]()
        release, leaves = threading.Event(), asyncio.Event()
        running = asyncio.create_task(pool.run(lambda: release.wait(60)))
        patient = asyncio.create_task(pool.run(lambda: done.append("patient")))
        gone = asyncio.create_task(pool.run(lambda: done.append("gone"), leaves.wait))
        cancelled = asyncio.create_task(pool.run(lambda: done.append("cancelled")))
        await asyncio.sleep(0)
        leaves.set()
        with pytest.raises(TooManyPasswords):
            await gone
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        release.set()
        await asyncio.gather(running, patient)
        await pool.run(lambda: done.append("last"))
        assert done == ["patient", "last"]

    async def test_the_loop_stays_free_while_hashing(self) -> None:
        slow = PasswordHasher(memory_kib=19456, rounds=8, parallelism=1, workers=2)
        work = [asyncio.create_task(slow.hash("secret words")) for _ in range(4)]
        beats = 0
        while not all(task.done() for task in work):
            await asyncio.sleep(0.001)
            beats += 1

        assert beats > 20
        assert len({await task for task in work}) == 4


class TestOpaqueTokens:
    def test_tokens_are_random_and_long(self) -> None:
        assert len({new_token() for _ in range(100)}) == 100
        assert len(new_token()) == 43

    def test_the_hash_does_not_show_the_token(self) -> None:
        token = new_token()

        assert token not in token_hash(token)
        assert len(token_hash(token)) == 64

    def test_a_successor_can_be_made_again_but_only_with_all_it_is_made_of(self) -> None:
        one = successor("token", salt="salt", secret=b"secret")

        assert one == successor("token", salt="salt", secret=b"secret")
        assert len(one) == 43
        others = {
            successor("other", salt="salt", secret=b"secret"),
            successor("token", salt="other", secret=b"secret"),
            successor("token", salt="salt", secret=b"other"),
        }
        assert one not in others
        assert len(others) == 3
