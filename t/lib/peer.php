<?php
// php-memcached for t/groups/interop.t: peer.php KIND get|set PREFIX HOST:PORT[=WEIGHT]...
//
// Keys come on stdin, in hex, one a line. The value of a key is the prefix and its number. Prints how many
// were stored, or found with this value, and how many it refuses to send because they are not ASCII.
[, $kind, $what, $prefix] = $argv;
$client = new Memcached();
$client->setOption(Memcached::OPT_COMPRESSION, false);
if ($kind === 'ketama') {
    $client->setOption(Memcached::OPT_LIBKETAMA_COMPATIBLE, true);
} elseif ($kind === 'ketama_unweighted') {
    $client->setOption(Memcached::OPT_DISTRIBUTION, Memcached::DISTRIBUTION_CONSISTENT);
}
foreach (array_slice($argv, 4) as $server) {
    [$name, $weight] = explode('=', "$server=0");
    [$host, $port] = explode(':', $name);
    $client->addServer($host, (int) $port, (int) $weight);
}
$right = $refused = 0;
foreach (file('php://stdin', FILE_IGNORE_NEW_LINES) as $at => $line) {
    $key = hex2bin($line);
    $value = $prefix . ($at + 1);
    $right += $what === 'set' ? $client->set($key, $value) : $client->get($key) === $value;
    $refused += $client->getResultCode() === Memcached::RES_BAD_KEY_PROVIDED && preg_match('/[\x80-\xff]/', $key);
}
echo "$right $refused";
