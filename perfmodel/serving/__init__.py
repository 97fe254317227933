"""Language models in service: points of operation, requests, speculation, prices."""

from ._kernel_time import Library as Library
from ._llm import Point as Point
from ._llm import Serving as Serving
from ._llm import serve as serve
from ._request import answer as answer
from ._request_checks import Request as Request
from ._request_checks import checked as checked
from ._speculative import accepted_tokens as accepted_tokens
from ._speculative import speculative_tpot_s as speculative_tpot_s
from ._sweep import sweep as sweep
