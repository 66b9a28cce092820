"""A strict stand-in for Webex Contact Center over real HTTP, for laptops and tests.

It shares no code with the program it stands opposite to: an error in one cannot hide
the same error in the other. Each behaviour carries the standing of the fact behind it:
*documented*, *reported* (seen by others on a live system), *inferred*, or *unknown* -
and what is unknown is a switch of :class:`include.sandbox.scenario.Scenario`.
"""
