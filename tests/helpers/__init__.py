"""What tests of several tiers share: what they compute with, oracles, comparisons."""
