"""Operations about settings: options, rules and their tester, tokens, lists that are fetched ahead."""

import time
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from mirror.access.identity import Identity
from mirror.access.policy import parse_address
from mirror.access.rules import Action
from mirror.config.display import option_rows, shown
from mirror.manage.warm.images import parse_image
from mirror.oci.reference import Tag
from mirror.web.activity.entries import Level, LogLine, LogQuestion
from mirror.web.admin.api.operation import ApiError, Audience, NoParameters, Operation
from mirror.web.admin.desk import Desk
from mirror.web.admin.visitors import PageVisitor


class SettingRow(Struct, frozen=True):
    """An option. `changed`: its value is not the default. Secrets are masked.

    `origin`: where the value comes from: default, a line of a file, a variable of the environment, a flag.
    """

    key: str
    value: str
    changed: bool
    origin: str


class RuleRow(Struct, frozen=True):
    """An access rule, as text."""

    number: int
    name: str
    effect: str
    about: str


class TokenRow(Struct, frozen=True, kw_only=True):
    """A token without its secret. Moments in seconds since the epoch, None for never."""

    name: str
    created: float
    expires: float | None
    expired: bool
    used: float | None
    repositories: list[str]
    actions: list[str]


class WarmRow(Struct, frozen=True, kw_only=True):
    """A list that is fetched on a schedule. Moments in seconds since the epoch, None for never."""

    name: str
    schedule: str
    last_began: float | None
    last_ended: float | None
    result: str
    images: int
    failed: int
    failures: dict[str, str]
    next: float


class AccessQuestion(Struct, frozen=True, forbid_unknown_fields=True):
    """A question to the rules. `identities`: principals, separated by spaces."""

    address: Annotated[str, Meta(min_length=1, max_length=60)]
    reference: Annotated[str, Meta(min_length=1, max_length=600)]
    action: Action = Action.PULL
    identities: Annotated[str, Meta(max_length=400)] = ""


class AccessAnswer(Struct, frozen=True):
    """The answer of the rules, and which rule gave it."""

    allowed: bool
    reason: str


class LogParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """`level`: the least grave one. `component`, `text`: parts of the component, and of the line."""

    level: Level = "info"
    component: Annotated[str, Meta(max_length=100)] = ""
    text: Annotated[str, Meta(max_length=200)] = ""
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class SettingsOperations:
    """The operations about settings."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """Return the operations."""
        return (
            _reading("settings", "Options with their values", self.settings, list[SettingRow]),
            _reading("rules", "Access rules", self.rules, list[RuleRow]),
            _reading("access-test", "What the rules say", self.test, AccessAnswer, AccessQuestion),
            _reading("tokens", "Tokens, without their secrets", self.tokens, list[TokenRow]),
            _reading("warm", "Lists that are fetched on a schedule", self.warm, list[WarmRow]),
            Operation(
                method="GET",
                path="/api/v1/log",
                summary="The last lines of the log of all workers, the oldest first",
                audience=Audience.ADMINS,
                call=self.log,
                parameters=LogParameters,
                answer=list[LogLine],
            ),
        )

    async def settings(self, _visitor: PageVisitor, _: NoParameters) -> list[SettingRow]:
        """Return the options."""
        return [
            SettingRow(key, shown(value, option), changed, self._desk.config.origins.get(key, "default"))
            for key, value, option, changed in option_rows(self._desk.config)
        ]

    async def log(self, _visitor: PageVisitor, wanted: LogParameters) -> list[LogLine]:
        """Return the last lines of the log."""
        question = LogQuestion(wanted.level, wanted.component, wanted.text, wanted.limit)
        return await self._desk.log_lines(question)

    async def rules(self, _visitor: PageVisitor, _: NoParameters) -> list[RuleRow]:
        """Return the rules, and the default behind them."""
        config = self._desk.config
        found = [
            RuleRow(
                number,
                each.name,
                each.effect,
                "; ".join(
                    f"{name}: {', '.join(map(str, value))}"
                    for name in ("identities", "networks", "repositories", "tags", "actions")
                    if (value := getattr(each, name))
                ),
            )
            for number, each in enumerate(config.rules, 1)
        ]
        return [*found, RuleRow(len(found) + 1, "access.default", config.access.default, "")]

    async def test(self, _visitor: PageVisitor, wanted: AccessQuestion) -> AccessAnswer:
        """Return what the rules say about a client and an image."""
        if parse_address(wanted.address) is None:
            raise ApiError(422, f"{wanted.address!r} is no address")
        try:
            image = parse_image(wanted.reference, self._desk.config.names().names)
        except ValueError as error:
            raise ApiError(422, str(error)) from None
        policy, names = self._desk.config.policy(), tuple(sorted(wanted.identities.split()))
        identity = Identity(wanted.address, names)
        identity = identity.also(self._desk.config.client_groups().of(names))
        tag = image.reference.name if isinstance(image.reference, Tag) else None
        if wanted.action is Action.ADMIN:
            return AccessAnswer(policy.administers(identity), "the rules about admin")
        decision = policy.decide(policy.scope(identity), wanted.action, image.repository, tag)
        return AccessAnswer(decision.allowed, decision.reason)

    async def tokens(self, _visitor: PageVisitor, _: NoParameters) -> list[TokenRow]:
        """Return the tokens."""
        now = time.time()
        return [
            TokenRow(
                name=each.entry.name,
                created=each.entry.created,
                expires=each.entry.expires,
                expired=each.entry.has_expired(now),
                used=each.used,
                repositories=list(each.entry.repositories),
                actions=[str(action) for action in each.entry.actions],
            )
            for each in await self._desk.management.tokens.all()
        ]

    async def warm(self, _visitor: PageVisitor, _: NoParameters) -> list[WarmRow]:
        """Return the lists, with their last and next runs."""
        return [WarmRow(**each) for each in self._desk.service.warm.status()]


def _reading(
    name: str, summary: str, call: object, answer: object, parameters: type[Struct] = NoParameters
) -> Operation:
    return Operation(
        method="GET",
        path=f"/api/v1/{name}",
        summary=summary,
        audience=Audience.OPERATORS,
        call=call,  # type: ignore[arg-type]
        answer=answer,
        parameters=parameters,
    )
