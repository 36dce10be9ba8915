"""
Bedrock's model of the library, with boto3's HTTP replaced by our client.

In: settings, a key of Bedrock's if there is one. Out: a model of `pydantic_ai`.
Promise: what boto3 has signed goes through the same policy as every other provider's requests.

boto3 blocks a thread for each read, and cannot be cancelled. Its documented way to stand in for its HTTP is the event
`before-send`: whoever answers it with a response has sent the request. Ours hands it to the call's line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentd.llm.library.line import LINE
from agentd.llm.settings import ModelSettings

if TYPE_CHECKING:
    from pydantic_ai.models import Model as TheirModel


def bedrock_model(settings: ModelSettings, secret: str | None, http: Any, who: str) -> TheirModel:
    """Keys are AWS's own, found by its library, unless `secret` is a key of Bedrock's. Raises NoRegionError."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.providers.bedrock import BedrockProvider

    # Keys of AWS sign each request; a key of Bedrock's is sent as it is, by the line.
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1}, signature_version=None if secret is None else UNSIGNED
    )
    session = boto3.Session(region_name=settings.region)
    client = session.client("bedrock-runtime", config=config, endpoint_url=settings.base_url)
    client.meta.events.register("before-send.bedrock-runtime.ConverseStream", _send)
    return BedrockConverseModel(settings.model, provider=BedrockProvider(bedrock_client=client))


def _send(request: Any, **_: Any) -> Any:
    """boto3's `before-send`, on a thread of its library's choice."""
    line = LINE.get()
    assert line is not None, "a request to Bedrock outside of a call"
    return line.send(request)
