"""The fault campaign: workers, coordinators and PostgreSQL are killed while candidates are trained; then everything is counted.

``campaign`` runs it, ``node`` is one simulated worker, ``proxy`` the network that loses and doubles messages, ``journal`` what
everybody was told, and ``verdict`` the check. The check knows the protocol and the tables, and none of the coordinator's code.
"""
