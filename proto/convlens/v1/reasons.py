"""The reasons of ErrorInfo: every cause that a caller can act on, its status code, what it means and what to do.

docs/errors.md has the same table. A reason keeps its meaning for ever; a new cause gets a new one.
"""

from __future__ import annotations

from enum import StrEnum

from grpc import StatusCode


class Reason(StrEnum):
    """A stable name of an error's cause. The SDK's exceptions carry it as `reason`."""

    code: StatusCode
    meaning: str
    action: str

    def __new__(cls, value: str, code: StatusCode, meaning: str, action: str) -> Reason:
        """Attach code and texts to the member named `value`."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.code, member.meaning, member.action = code, meaning, action
        return member

    # fmt: off
    INVALID_FIELD = ("INVALID_FIELD", StatusCode.INVALID_ARGUMENT,
        "A field of the request has a value that is not allowed. BadRequest names the field.",
        "Correct the field; the message says what is allowed.")
    IMAGE_UNREADABLE = ("IMAGE_UNREADABLE", StatusCode.INVALID_ARGUMENT,
        "The worker cannot decode an image. BadRequest names it by its index.",
        "Send an intact file of a supported format.")
    REQUEST_ID_REUSED = ("REQUEST_ID_REUSED", StatusCode.INVALID_ARGUMENT,
        "The request_id belongs to an earlier, different request.",
        "Use a new UUID for each request and the same one only for its retries.")
    REQUEST_TOO_LARGE = ("REQUEST_TOO_LARGE", StatusCode.INVALID_ARGUMENT,
        "The request has more bytes than its method accepts.",
        "Send fewer or smaller images per job, or raise max_request_bytes.")
    NEVER_FITS = ("NEVER_FITS", StatusCode.INVALID_ARGUMENT,
        "The job alone is larger than a bound of the server. QuotaFailure names the bound.",
        "Make the job smaller or raise the bound; a retry cannot succeed.")
    RESULT_TOO_LARGE = ("RESULT_TOO_LARGE", StatusCode.FAILED_PRECONDITION,
        "The result of a VisualizeUnary call does not fit into one message.",
        "Call Visualize, which streams it. The SDK does so by itself.")
    JOB_NOT_ENDED = ("JOB_NOT_ENDED", StatusCode.FAILED_PRECONDITION,
        "The operation needs a job that has ended.",
        "Wait for the job (WatchJob) or cancel it.")
    MODEL_UNKNOWN = ("MODEL_UNKNOWN", StatusCode.NOT_FOUND,
        "No worker has served a model of this name in the last 24 hours.",
        "Use a name that ListModels returns.")
    JOB_UNKNOWN = ("JOB_UNKNOWN", StatusCode.NOT_FOUND,
        "There is no job of this id, its record has expired, or it belongs to another tenant.",
        "Check the id; submit the request again.")
    RESULT_EXPIRED = ("RESULT_EXPIRED", StatusCode.NOT_FOUND,
        "The job succeeded, but its result has been deleted.",
        "Submit the request again; read results within result_ttl.")
    TOKEN_MISSING = ("TOKEN_MISSING", StatusCode.UNAUTHENTICATED,
        "The call has no bearer token, or several.",
        "Send one `authorization: Bearer TOKEN`.")
    TOKEN_UNKNOWN = ("TOKEN_UNKNOWN", StatusCode.UNAUTHENTICATED,
        "The token is not in the server's tokens file.",
        "Use a valid token; `convlens token new` makes one.")
    ROLE_MISSING = ("ROLE_MISSING", StatusCode.PERMISSION_DENIED,
        "The token lacks the role that the method needs. The metadata name the role and the tenant.",
        "Use a token with that role.")
    QUEUE_FULL = ("QUEUE_FULL", StatusCode.RESOURCE_EXHAUSTED,
        "A bound on queued jobs, their images or their results is reached. QuotaFailure names it.",
        "Retry after the delay of RetryInfo.")
    RATE_EXCEEDED = ("RATE_EXCEEDED", StatusCode.RESOURCE_EXHAUSTED,
        "The tenant submits more than its rate limit allows.",
        "Retry after the delay of RetryInfo.")
    SERVER_FULL = ("SERVER_FULL", StatusCode.RESOURCE_EXHAUSTED,
        "The server holds as many calls or bytes of requests as it may. QuotaFailure names the bound.",
        "Retry after the delay of RetryInfo.")
    STORE_FULL = ("STORE_FULL", StatusCode.RESOURCE_EXHAUSTED,
        "The payload store has no space for the images.",
        "Retry after the delay of RetryInfo.")
    RESULT_STORE_FULL = ("RESULT_STORE_FULL", StatusCode.RESOURCE_EXHAUSTED,
        "The job was computed, but the payload store had no space for its result.",
        "Submit the request again later.")
    REQUEST_INCOMPLETE = ("REQUEST_INCOMPLETE", StatusCode.DEADLINE_EXCEEDED,
        "The request did not arrive completely in time.",
        "Retry; check the network between client and server.")
    DEADLINE_EXCEEDED = ("DEADLINE_EXCEEDED", StatusCode.DEADLINE_EXCEEDED,
        "The deadline passed while the job was queued or running.",
        "Retry with a longer timeout.")
    CANCELLED = ("CANCELLED", StatusCode.CANCELLED,
        "The job was cancelled by CancelJob.",
        "Nothing; submit the request again if it is still needed.")
    ABANDONED = ("ABANDONED", StatusCode.CANCELLED,
        "Every caller that waited for the job went away, so it was cancelled.",
        "Retry; use SubmitJob for jobs that outlive their caller.")
    MODEL_CHANGED = ("MODEL_CHANGED", StatusCode.ABORTED,
        "The model's weights were replaced while the job was queued. A call that waits gets UNAVAILABLE.",
        "Retry: the same request is computed with the new weights.")
    PAYLOAD_GONE = ("PAYLOAD_GONE", StatusCode.ABORTED,
        "The images of the job were lost before it ran.",
        "Submit the request again.")
    ATTEMPTS_EXHAUSTED = ("ATTEMPTS_EXHAUSTED", StatusCode.ABORTED,
        "The workers that ran the job stopped, at each of its attempts.",
        "Read the workers' logs; submit the request again, smaller if memory was short.")
    NO_WORKERS = ("NO_WORKERS", StatusCode.UNAVAILABLE,
        "No worker serves the model at the moment.",
        "Retry after the delay of RetryInfo; start a worker.")
    REDIS_UNAVAILABLE = ("REDIS_UNAVAILABLE", StatusCode.UNAVAILABLE,
        "The server cannot reach Redis, or Redis cannot write.",
        "Retry; `convlens doctor` says what is wrong.")
    INTERNAL = ("INTERNAL", StatusCode.INTERNAL,
        "An unexpected error in server or worker.",
        "Report it with the log lines of the job.")
    # fmt: on


def code_of(reason: str) -> StatusCode:
    """Return the status code of `reason`: INTERNAL for one that this version does not know, as of a newer worker."""
    return Reason.__members__[reason].code if reason in Reason.__members__ else StatusCode.INTERNAL
