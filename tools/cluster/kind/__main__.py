"""kind clusters for tests: python -m tools.cluster.kind up demo --workers 2; see --help."""

from __future__ import annotations

import argparse
import sys

from tools.cluster.kind import cluster
from tools.cluster.kind.base_image import base_archive
from tools.cluster.kind.engine import engine
from tools.cluster.kind.node_binaries import kind_program
from tools.cluster.kind.node_image import node_archive
from tools.cluster.kind.smoke import smoke
from tools.cluster.kind.state import kubeconfig
from tools.cluster.say import ClusterError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.cluster.kind", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="create a cluster, wait until it works, print the path of its kubeconfig")
    up.add_argument("name")
    up.add_argument("--workers", type=int, default=2)
    load = verbs.add_parser("load", help="give the nodes an image that docker holds")
    load.add_argument("name")
    load.add_argument("images", nargs="+")
    down = verbs.add_parser("down", help="delete a cluster; with the last one our own engine goes too")
    down.add_argument("name")
    kubectl = verbs.add_parser("kubectl", help="run kubectl as the cluster's admin")
    kubectl.add_argument("name")
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER)
    env = verbs.add_parser("env", help="print what a shell needs: eval $(python -m tools.cluster.kind env NAME)")
    env.add_argument("name")
    verbs.add_parser("base", help="print the value for --build-arg BASE_IMAGE; nothing where the public image can be pulled")
    verbs.add_parser("build", help="fill the cache: binaries, node image, base image")
    verbs.add_parser("smoke", help="create 1 + 1 nodes, run a pod, delete, look for leftovers")
    return parser


def main() -> None:
    """Do what the command line says."""
    words = _parser().parse_args()
    match words.verb:
        case "up":
            print(cluster.up(words.name, words.workers))
        case "load":
            cluster.load(words.name, *words.images)
        case "down":
            cluster.down(words.name)
        case "kubectl":
            sys.stdout.write(cluster.kubectl(words.name, *words.arguments))
        case "env":
            for name, value in {**engine().env, "KUBECONFIG": str(kubeconfig(words.name))}.items():
                print(f"export {name}={value}")
        case "base":
            print(cluster.base())
        case "build":
            print(kind_program(), node_archive(), base_archive(), sep="\n")
        case "smoke":
            smoke()


if __name__ == "__main__":
    try:
        main()
    except ClusterError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
