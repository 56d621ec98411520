"""What ops/api-fuzz expects of refusals that no description can foresee: a check of its own for schemathesis.

A request that fits the description may still be refused with 400 where that depends on what is there, or on two fields
together. Each such refusal is named here by its operation and code, with its reason; any other one is a mistake, either of
the description or of the hub.
"""

import schemathesis

EXPECTED = {
    # A database's port is never public: two fields together.
    "createTunnel": ["protected_port"],
    "registerService": ["protected_port"],
    # Whether a tunnel can have a link depends on its protocol, which may have changed since.
    "shareTunnel": ["not_shareable"],
    "shareService": ["not_shareable"],
    "setSubdomain": ["not_shareable"],
    # No agent is connected, so none has an active tunnel.
    "shareEnvironment": ["nothing_to_share"],
    # RFC 8628 has 400 for a login that nobody has decided yet, and for one that is over.
    "getDeviceToken": ["authorization_pending", "slow_down", "expired_token", "access_denied"],
    # Two capabilities of one name and with different metadata: JSON Schema compares whole objects.
    "setCapabilities": ["validation_failed: `capabilities` must name `"],
}


@schemathesis.check
def refused_for_a_named_reason(ctx, response, case):
    if response.status_code != 400 or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    operation = case.operation.definition.raw["operationId"]
    is_json = "json" in response.headers.get("content-type", [""])[0]
    problem = response.json() if is_json else {"code": "a page", "message": ""}
    reason = f"{problem['code']}: {problem['message']}"
    expected = EXPECTED.get(operation, [])
    assert any(reason.startswith(start) for start in expected), f"{operation} fits its description: {reason}"
