import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.FileChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * Sends a file to a TCP port on loopback by FileChannel.transferTo, as Kafka sends a log segment to a
 * consumer: pieces of a fetch's size, each from a position that it keeps itself.
 *
 * <p>Usage: Transfer FILE PORT. Prints the bytes that it sent.
 */
public final class Transfer {
    private static final long FETCH_BYTES = 1 << 20;

    private Transfer() {}

    public static void main(String[] arguments) throws IOException {
        InetSocketAddress consumer =
                new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(arguments[1]));
        try (FileChannel segment = FileChannel.open(Path.of(arguments[0]), StandardOpenOption.READ);
                SocketChannel socket = SocketChannel.open(consumer)) {
            System.out.println(send(segment, socket));
        }
    }

    private static long send(FileChannel segment, SocketChannel socket) throws IOException {
        long size = segment.size();
        long position = 0;
        while (position < size) {
            long sent = segment.transferTo(position, Math.min(FETCH_BYTES, size - position), socket);
            if (sent <= 0) {
                throw new IOException("nothing sent at " + position + " of " + size);
            }
            position += sent;
        }
        return position;
    }
}
