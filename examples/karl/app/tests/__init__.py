"""Tests of karl: units, and the whole site with its database service."""
