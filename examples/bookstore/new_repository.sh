#!/usr/bin/env bash
# Make a fresh git repository from the files under repository/: new_repository.sh FOLDER
# A repository that an earlier call made is replaced; any other folder is left alone.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: new_repository.sh FOLDER" >&2
    exit 2
fi
folder=$1
template=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/repository

if [ -f "$folder/.git/made-by-new-repository" ]; then
    rm -rf -- "$folder"
elif [ -e "$folder" ]; then
    echo "error: $folder exists and is not a repository that this script made." >&2
    exit 2
fi
mkdir -p -- "$(dirname -- "$folder")"
cp -R -- "$template" "$folder"
cd -- "$folder"
git init --quiet --initial-branch=main
touch .git/made-by-new-repository
git add --all
git -c user.name=Bookstore -c user.email=bookstore@example.org -c commit.gpgSign=false commit --quiet \
    --message "A bookstore without models"
echo "A fresh repository is in $folder."
