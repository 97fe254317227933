"""What a device costs an hour, and a million tokens."""

from ..cost import system_price
from ..hardware import System

MARKUP = 10.0  # [assumed] market price over bill of materials: an A100 sells for 15 kUSD [memory], its parts come to about 1.5
YEARS = 3.0  # of service, as TCO = CapEx + 3 x yearly OpEx has it
USD_PER_KWH = 0.10  # [assumed]
OVERHEAD = 2.0  # provisioning and cooling about double the electricity [secondary]
_HOURS_A_YEAR = 8760.0


def usd_per_device_hour(system: System, power_w):
    """Purchase over three years of service, and electricity with what is provisioned for it:
    markup x (dies + package + memory) / devices / (3 x 8760 h) + power x 2 x 0.10 USD/kWh. `power_w`: drawn by one device."""
    bill = sum(system_price(system)) / system.n_chiplets
    return MARKUP * bill / (YEARS * _HOURS_A_YEAR) + power_w / 1e3 * OVERHEAD * USD_PER_KWH


def usd_per_million_tokens(usd_per_hour, devices, tokens_per_s):
    """Price of `devices` over what they make."""
    return 1e6 * usd_per_hour * devices / 3600.0 / tokens_per_s
