"""Hospitals reached over Flower: the engine, the transfer of whole messages in parts, and the processes that speak Flower."""
