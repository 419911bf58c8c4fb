"""Home Assistant finds the gateway, its plants and their devices by itself.

Payloads are as https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload has them.
"""
