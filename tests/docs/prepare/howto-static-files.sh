mkdir /srv/site
echo '<h1>It works</h1>' >/srv/site/index.html
