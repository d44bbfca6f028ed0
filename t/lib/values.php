<?php
// values.php PORT write: stores a value of each kind. values.php PORT read KEY...: prints what is there.

[, $port, $what] = $argv;
$memc = new Memcached();
$memc->addServer('127.0.0.1', (int) $port);
// the default depends on how the extension was built
$memc->setOption(Memcached::OPT_SERIALIZER, Memcached::SERIALIZER_PHP);

if ($what === 'read') {
    foreach (array_slice($argv, 3) as $key) {
        $found = $memc->get($key, null, Memcached::GET_EXTENDED);
        $value = $found['value'] ?? null;
        $text = is_float($value) ? var_export($value, true) : json_encode($value);
        echo $key, ': ', gettype($value), ' ', $text, ' flags ', $found['flags'] ?? '-', "\n";
    }
    exit;
}

$values = [
    'string' => 'abc', 'empty' => '', 'bytes' => "\0\xff\r\n",
    'integer' => 42, 'negative' => -5, 'largest' => PHP_INT_MAX, 'exact' => 2 ** 53,
    'double' => 1.5, 'tenth' => 0.1, 'huge' => 1e300, 'whole' => 3.0,
    'infinity' => INF, 'minus infinity' => -INF, 'nan' => NAN,
    'true' => true, 'false' => false, 'null' => null, 'array' => [1, 2],
];
foreach ($values as $key => $value) {
    $memc->set(rawurlencode($key), $value);
}
$memc->setOption(Memcached::OPT_SERIALIZER, Memcached::SERIALIZER_JSON);
$memc->set('json', ['a' => [1, 2.5, 'x', true, null], 'o' => ['k' => 'v']]);
$memc->set('json%20list', [1, 2, 3]);
$memc->setOption(Memcached::OPT_USER_FLAGS, 5);
$memc->set('user', 'x');
$memc->set('user%20integer', 7);
$memc->setOption(Memcached::OPT_USER_FLAGS, 0);
$memc->setOption(Memcached::OPT_COMPRESSION_TYPE, Memcached::COMPRESSION_ZLIB);
$memc->set('zlib', str_repeat('abc', 2000));
$memc->set('zlib%20json', array_fill(0, 2000, 'abc'));
$memc->setOption(Memcached::OPT_COMPRESSION_TYPE, Memcached::COMPRESSION_FASTLZ);
$memc->set('fastlz', str_repeat('abc', 2000));
