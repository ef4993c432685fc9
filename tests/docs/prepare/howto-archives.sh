for n in 1 2; do
    echo $n >00000$n.cls
    head --bytes=3000 /dev/urandom >00000$n.jpg
    tar --create --file=/shards/train-000$((n - 1)).tar 00000$n.cls 00000$n.jpg
done
rm 00000*
