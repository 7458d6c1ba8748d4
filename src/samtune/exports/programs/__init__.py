"""Programs that other tools run: each is copied into an export's folder, its constants filled in.

They use what a user of samtune imports, and the tool's own packages, which samtune itself does not
need. What writes and checks them is in `formats`.
"""
