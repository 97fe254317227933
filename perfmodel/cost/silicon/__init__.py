"""Area, yield and price."""
