"""
Providers that are spoken to through a library: Anthropic, Gemini and Bedrock, by the model layer of pydantic-ai.

In: a model's settings and our HTTP client. Out: a `Model`.
Promise: no library is loaded before the first question, and then on a thread; every request of it goes through our
client, so that rates, retries, deadlines and spend are the same for all providers.
"""

from agentd.llm.library.model import open_library_model

__all__ = ["open_library_model"]
