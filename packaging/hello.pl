# The service of the first fence. It answers each request with a line; what else a fence can hold, the guides tell.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 9000, Listen => 64, ReuseAddr => 1)
    or die "cannot listen: $!\n";
$SIG{PIPE} = 'IGNORE';
while (my $client = $server->accept) {
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/ }
    my $text = "hello from behind the fence\n";
    print {$client} "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " . length($text)
        . "\r\nConnection: close\r\n\r\n$text";
    close $client;
}
