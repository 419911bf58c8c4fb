"""The router and what every bridge shares with it. Knows no protocol."""
