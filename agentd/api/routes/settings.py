"""The configuration: what is in effect, what may be changed live, and whether another one would be right."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field
from starlette.responses import Response

from agentd.api import shapes_whole
from agentd.api.answers import JsonAnswer
from agentd.api.endpoint import Asked, Call, Endpoint
from agentd.api.settings_port import SettingsService

MAX_CONFIG_BYTES = 2 * 1024 * 1024
"""A thousand watches are some hundred kilobytes."""


class Patch(Asked):
    """Keys of the configuration that may be changed live, with their new values; null takes one back."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ModelBody(Asked):
    """A model in `models`, in short."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(default="default", max_length=63, description="Its name in `models`")


class ValidateBody(Asked):
    config: dict[str, Any] | str = Field(description="A configuration, as data or as the text of a file")


class SettingsRoutes:
    def __init__(self, service: SettingsService) -> None:
        self._service = service

    def endpoints(self) -> list[Endpoint]:
        tag, path = "config", "/api/v1/config"
        return [
            Endpoint(
                "GET",
                path,
                self.config,
                "read",
                "The configuration in effect, without secrets",
                tag,
                answer=shapes_whole.Configuration,
            ),
            Endpoint(
                "PUT",
                path,
                self.change,
                "admin",
                "Change models and limits, at once",
                tag,
                body=Patch,
                problems=(409, 503),
                answer=shapes_whole.Changed,
            ),
            Endpoint(
                "PUT",
                f"{path}/model",
                self.change_model,
                "admin",
                "Change a model, at once",
                tag,
                body=ModelBody,
                problems=(409, 503),
                answer=shapes_whole.Changed,
            ),
            Endpoint(
                "POST",
                f"{path}/validate",
                self.validate,
                "records",
                "Whether a configuration would be right",
                tag,
                body=ValidateBody,
                most_bytes=MAX_CONFIG_BYTES,
                answer=shapes_whole.Validated,
            ),
        ]

    async def config(self, call: Call) -> Response:
        return JsonAnswer(await self._service.config())

    async def change(self, call: Call) -> Response:
        said: Patch = call.asked
        return JsonAnswer(await self._service.change(said.model_dump(exclude={"by"}), by=call.by))

    async def change_model(self, call: Call) -> Response:
        said: ModelBody = call.asked
        return JsonAnswer(await self._service.change_model(said.model_dump(exclude={"by"}), by=call.by))

    async def validate(self, call: Call) -> Response:
        said: ValidateBody = call.asked
        return JsonAnswer(await self._service.validate(said.config))
