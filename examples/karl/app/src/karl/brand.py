"""What tells one branch of karl from another at a glance: its heading.

Each branch of the repository may change this file; all else is shared.
"""

HEADING = "KARL"
