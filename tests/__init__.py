"""The tests of jlstm, in four tiers: core, wings, peers and system. See CONTRIBUTING.md."""
