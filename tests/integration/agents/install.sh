#!/usr/bin/env bash
# Install the pinned programs of agents that `make test-agents` runs into .agents/. One that can't be installed is said, and
# is no error here: the tests skip it in words, and fail where the variable CI is set.
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.."
mkdir -p .agents/bin
log=.agents/install.log
: > "$log"

npm_program() {  # the program's name, its package with the version
    [ "$(cat ".agents/$1.version" 2> /dev/null)" = "$2" ] && return
    if npm install --prefix ".agents/$1" --no-audit --no-fund --loglevel=error "$2" >> "$log" 2>&1; then
        ln -sfn "../$1/node_modules/.bin/$1" ".agents/bin/$1" && echo "$2" > ".agents/$1.version"
    else
        echo "$1 ($2) can't be installed, see $log" >&2
    fi
}

python_program() {  # the program's name, its package with the version, more packages
    [ "$(cat ".agents/$1.version" 2> /dev/null)" = "$2" ] && return
    if { python3 -m venv ".agents/$1" && ".agents/$1/bin/pip" install --quiet "${@:2}"; } >> "$log" 2>&1; then
        ln -sfn "../$1/bin/$1" ".agents/bin/$1" && echo "$2" > ".agents/$1.version"
    else
        echo "$1 ($2) can't be installed, see $log" >&2
    fi
}

npm_program claude @anthropic-ai/claude-code@2.1.330
npm_program gemini @google/gemini-cli@0.61.0
npm_program codex @openai/codex@0.169.0
python_program mini mini-swe-agent==2.4.6 mcp
