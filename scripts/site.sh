#!/bin/bash
# Makes build/site from all Markdown pages: static, searchable, without tracking and without anything from other servers, so that it also
# works from its folder. The generator is Sphinx, pinned in tools/site/requirements.txt. A warning, such as a broken link, is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=build/site-tools pages=build/site-pages
if ! cmp -s tools/site/requirements.txt $tools/requirements.txt; then
	rm -rf $tools
	python3 -m venv $tools || { echo 'missing; on Debian: apt-get install python3-venv' >&2; exit 1; }
	$tools/bin/pip install -q -r tools/site/requirements.txt
	cp tools/site/requirements.txt $tools/
fi
rm -rf $pages build/site
mkdir -p $pages
git ls-files -z '*.md' docs '*.schema.json' contrib | xargs -0 cp --parents -t $pages
sed -Ei 's/^(#.*)\[([^]]*)\]\([^)]*\)/\1\2/' $pages/contrib/README.md # Sphinx has no links in headings
# The order of the pages is that of docs/README.md.
{
	printf '\n```{toctree}\n:hidden:\n\ndocs/README\n'
	grep -o '^| \[[^]]*\](\([^)]*\))' docs/README.md | sed 's/.*(\(.*\)\.md)/docs\/\1/; s|docs/\.\./||'
	printf 'CHANGELOG\nCONTRIBUTING\nSECURITY\n```\n'
} >>$pages/README.md
printf '\n```{toctree}\n:hidden:\n\n%s\n```\n' "$(cd docs/boot && ls *.md | sed '/README/d; s/\.md$//')" >>$pages/docs/boot/README.md
$tools/bin/sphinx-build -q -W --keep-going -c tools/site $pages build/site
mv build/site/README.html build/site/index.html
sed -i 's|\(href="[./]*\)README\.html|\1index.html|' build/site/*.html
echo "build/site/index.html"
