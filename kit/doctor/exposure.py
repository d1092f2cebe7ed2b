"""Who can reach this user's Jupyter and TensorBoard; each finding is a text with the remedy."""

import logging
from pathlib import Path


def jupyter() -> list[str]:
    """Look at Jupyter's configuration, as it would read it, and at the servers that run."""
    from jupyter_core.application import JupyterApp
    from jupyter_server.serverapp import list_running_servers

    application = JupyterApp(log=logging.getLogger(__name__))  # its own closes other handlers
    for name in ("jupyter_server_config", "jupyter_lab_config", "jupyter_notebook_config"):
        application.config_file_name = name
        application.load_config_file()
    found = _configured(application.config)
    for server in list_running_servers():
        where = f"the Jupyter server on port {server['port']}"
        if not _is_local(server["hostname"]):
            found.append(f"{where} listens on {server['hostname'] or 'all addresses'}")
        if not server["token"] and not server["password"]:
            found.append(f"{where} asks for no token")
    remedy = "whoever reaches it runs programs as you; take that out and use ssh -L instead"
    return [f"{text}: {remedy}" for text in found]


def _configured(config):
    """Read what the server takes, which in old files is called NotebookApp."""
    found = []
    servers = {"ServerApp": config.ServerApp, "NotebookApp": config.NotebookApp}
    for name, server in servers.items():
        if not _is_local(ip := server.get("ip", "localhost")):
            found.append(f'Jupyter\'s configuration sets {name}.ip to "{ip}" (jupyter --paths)')
    tokens = [part.get("token") for part in (config.IdentityProvider, *servers.values())]
    passwords = [part.get("password") for part in servers.values()]
    passwords.append(config.PasswordIdentityProvider.get("hashed_password"))
    if "" in tokens and not any(passwords):
        found.append("Jupyter's configuration disables the token (jupyter --paths)")
    return found


def _is_local(host):
    return host in ("localhost", "::1") or host.startswith("127.")


def tensorboard() -> list[str]:
    """Look at the TensorBoards that run; one stays on localhost unless it was told otherwise."""
    from tensorboard import manager

    everywhere = ports_open_to_all()
    return [
        f"TensorBoard on port {board.port} listens on all addresses and has no password: restart "
        "it without --bind_all or --host"
        for board in manager.get_all()
        if board.port in everywhere
    ]


def ports_open_to_all() -> set[int]:
    """Give the TCP ports that are open on every address; none on a system without /proc."""
    found = set()
    for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for row in path.read_text(encoding="ascii").splitlines()[1:] if path.exists() else ():
            local, state = row.split()[1], row.split()[3]
            address, port = local.split(":")
            if state == "0A" and not address.strip("0"):  # LISTEN, on 0.0.0.0 or ::
                found.add(int(port, 16))
    return found
